"""From documents to token ids, batch by batch, in one process or in several with the same outcome.

Documents are read in this process; texts are changed, hashed and tokenised in the others.
"""

import multiprocessing
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tqdm import tqdm

from selmem.documents import Document
from selmem.tokenization import plain_backend
from selmem.word_pairs import WordSwap

BATCH_CHARACTERS = 4_000_000  # tokenised at once, in as many threads as there are cores
SHARED_CHARACTERS = 500_000  # likewise, where several processes take batches


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenisedDocument:
    """A document as a store keeps it.

    Attributes:
        doc_id: its name within its source.
        source: name of the corpus.
        n_tokens: without the end-of-text token.
        digest: SHA-256 of the text as it was read.
        tokens: the ids and one end-of-text token, little by little of the store's width.
        n_replaced: words replaced in it.
    """

    doc_id: str
    source: str
    n_tokens: int
    digest: bytes
    tokens: bytes
    n_replaced: Counter[str]


@dataclass(frozen=True)
class BatchTokeniser:
    """Tokenises batches of documents.

    Attributes:
        encoder: without padding and truncation.
        eos: id of the end-of-text token.
        width: of a token in a store, uint16 or uint32.
        swap: changes each text before it is tokenised.
    """

    encoder: Tokenizer
    eos: int
    width: type
    swap: WordSwap | None

    def __call__(self, batch: list[Document]) -> list[TokenisedDocument]:
        """Return the documents that have tokens, in order."""
        changed = [self._changed(document.text) for document in batch]
        encodings = self.encoder.encode_batch_fast(
            [text for text, _ in changed], add_special_tokens=False
        )
        return [
            TokenisedDocument(
                doc_id=document.doc_id,
                source=document.source,
                n_tokens=len(encoding),
                digest=sha256(document.text.encode()).digest(),
                tokens=np.array([*encoding.ids, self.eos], self.width).tobytes(),
                n_replaced=n_replaced,
            )
            for document, encoding, (_, n_replaced) in zip(batch, encodings, changed, strict=True)
            if len(encoding)
        ]

    def _changed(self, text: str) -> tuple[str, Counter[str]]:
        if self.swap is None:
            return text, Counter()
        swap = replace(self.swap, n_replaced=Counter())
        return swap(text), swap.n_replaced


def tokenised(
    documents: Iterable[Document],
    tokenizer: Any,
    width: type,
    swap: WordSwap | None = None,
    *,
    jobs: int = 1,
) -> Iterator[TokenisedDocument]:
    """Yield the documents that have tokens, in order.

    Args:
        documents: streamed.
        tokenizer: a fast transformers tokenizer with an end-of-text token.
        width: of a token in a store, uint16 or uint32.
        swap: changes each text before it is tokenised; its own counts stay as they are.
        jobs: processes; 1 is this one, where the tokenizer has a thread for each core.
    """
    progress = tqdm(documents, desc="tokenising", unit=" documents", disable=None)
    if jobs == 1:
        for batch in map(_tokeniser(tokenizer, width, swap), _batches(progress, BATCH_CHARACTERS)):
            yield from batch
        return
    context = multiprocessing.get_context("forkserver")  # a thread of the tokenizer forbids fork
    context.set_forkserver_preload(["__main__", __name__])
    with context.Pool(jobs, _start_worker, (tokenizer, width, swap)) as pool:
        for batch in pool.imap(_in_worker, _batches(progress, SHARED_CHARACTERS)):
            yield from batch


def _tokeniser(tokenizer: Any, width: type, swap: WordSwap | None) -> BatchTokeniser:
    return BatchTokeniser(plain_backend(tokenizer), int(tokenizer.eos_token_id), width, swap)


_worker: list[BatchTokeniser] = []  # the one of this process, where it is a worker


def _start_worker(tokenizer: Any, width: type, swap: WordSwap | None) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _worker[:] = [_tokeniser(tokenizer, width, swap)]


def _in_worker(batch: list[Document]) -> list[TokenisedDocument]:
    return _worker[0](batch)


def _batches(documents: Iterable[Document], characters: int) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= characters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
