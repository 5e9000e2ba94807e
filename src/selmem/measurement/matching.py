"""The omission rules on the chunks of one source and length, and the chance that stands beside."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerFast

from selmem.chunks import Chunk
from selmem.measurement.placement import Span, pretoken_ends, word_spans
from selmem.omission_rate.alignment import TokenWords, align, aligned_omissions, any_missed
from selmem.omission_rate.chance import chance_rates, derangements
from selmem.omission_rate.rules import Pretokens, Reference, count_omissions
from selmem.tokenization import decode

Flags = npt.NDArray[np.bool_]
Rates = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Matched:
    """What the rules say about one chunk; arrays over its words, if not said otherwise.

    Attributes:
        text: decoded reconstruction.
        reference_pretoken_ends: characters of the chunk's text after which pre-tokens end.
        pretoken_ends: the same of the reconstruction.
        spans: characters of each word in the chunk's text.
        aligned: whether the longest common subsequence holds the token, (T,).
        omitted_count: fraction omitted under the rule count.
        omitted_aligned: omitted under the rule aligned.
        omitted_forced: omitted under the rule forced.
        chance_count: mean of omitted_count against reconstructions of other documents; None where
            there is no other document.
        chance_aligned: the same under the rule aligned.
    """

    text: str
    reference_pretoken_ends: list[int]
    pretoken_ends: list[int]
    spans: list[Span]
    aligned: Flags
    omitted_count: Rates
    omitted_aligned: Flags
    omitted_forced: Flags
    chance_count: Rates | None
    chance_aligned: Rates | None


def match_chunks(
    chunks: Sequence[Chunk],
    reconstructions: Sequence[Sequence[int]],
    argmax_ids: Sequence[npt.NDArray[np.int32]],
    tokenizer: PreTrainedTokenizerFast,
    *,
    chance_draws: int = 10,
    seed: int = 0,
) -> list[Matched]:
    """Apply all rules to all chunks of one source and length.

    Args:
        chunks: n chunks; their documents are what chance keeps apart.
        reconstructions: token ids written for each chunk, without EOS.
        argmax_ids: the probe's best guess at each token of each chunk, (T,).
        tokenizer: of the ids.
        chance_draws: reconstructions of other documents that chance is the mean over.
        seed: of the draws.
    """
    texts = [decode(tokenizer, ids) for ids in reconstructions]
    others = [Pretokens.of_text(text, pretoken_ends(tokenizer, text)) for text in texts]
    references = [_reference(chunk, tokenizer) for chunk in chunks]
    token_words = [_token_words(chunk) for chunk in chunks]
    aligned = [match >= 0 for match in align([c.token_ids for c in chunks], reconstructions)]
    count = count_omissions([reference for reference, _ in references], others)

    chance: list[tuple[Rates | None, Rates | None]] = [(None, None)] * len(chunks)
    donors = derangements([chunk.doc_id for chunk in chunks], draws=chance_draws, seed=seed)
    if donors is not None:
        by_count = chance_rates(
            count_omissions, [reference for reference, _ in references], others, donors
        )
        by_alignment = chance_rates(aligned_omissions, token_words, reconstructions, donors)
        chance = list(zip(by_count, by_alignment, strict=True))
    return [
        Matched(
            text=texts[i],
            reference_pretoken_ends=list(references[i][0].pretokens.ends),
            pretoken_ends=list(others[i].ends),
            spans=references[i][1],
            aligned=aligned[i],
            omitted_count=count[i],
            omitted_aligned=any_missed(aligned[i], token_words[i].spans),
            omitted_forced=any_missed(
                np.asarray(argmax_ids[i]) == np.asarray(chunk.token_ids), token_words[i].spans
            ),
            chance_count=chance[i][0],
            chance_aligned=chance[i][1],
        )
        for i, chunk in enumerate(chunks)
    ]


def _reference(chunk: Chunk, tokenizer: PreTrainedTokenizerFast) -> tuple[Reference, list[Span]]:
    spans = word_spans(tokenizer, chunk)
    pretokens = Pretokens.of_text(chunk.text, pretoken_ends(tokenizer, chunk.text))
    return Reference.of_spans(pretokens, spans, [word.cut for word in chunk.words]), spans


def _token_words(chunk: Chunk) -> TokenWords:
    return TokenWords(chunk.token_ids, [(word.token_start, word.token_end) for word in chunk.words])
