"""Train the bundle's byte-level BPE tokenizer on a sample balanced between sources.

    python scripts/train_tokenizer.py --data DIR/*.train.jsonl.xz --out tokenizer

Time: 25 seconds on two cores for the 100 MB sample. Result on the redistributable part of the
corpus: 4,096 entries; 2.09 (mathematics) to 3.60 (papers) bytes a token, fiction 3.09, wiki 2.98.

The pre-tokenizer is the byte-level one of GPT-NeoX-20B, whose tokenizer the `state-spaces/mamba-*`
checkpoints use, so words, spaces and runs of digits are cut before merging as they are there. There
is no Unicode normaliser: decoding gives back the text byte for byte.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from selmem.corpora import read_documents
from selmem.tables import write_text

END_OF_TEXT = "<|endoftext|>"
PASSAGE_CHARACTERS = 10_000  # documents are sampled in passages, since one novel is 800 kB


def passages(text: str) -> Iterator[str]:
    """Yield consecutive pieces of `text` that end at a line break where one is near."""
    start = 0
    while start < len(text):
        newline = text.find("\n", start + PASSAGE_CHARACTERS)
        end = len(text) if newline < 0 or newline > start + 2 * PASSAGE_CHARACTERS else newline
        yield text[start:end]
        start = end


def equal_share(sizes: Iterable[int], budget: int) -> int:
    """Return the cap per source that, small sources kept whole, adds up to `budget` bytes."""
    rest = sorted(sizes)
    while rest and rest[0] * len(rest) <= budget:
        budget -= rest.pop(0)
    return budget // len(rest) if rest else budget


def sample(sources: list[str], sample_bytes: int) -> dict[str, list[str]]:
    """Return passages per source, each source cut to the same cap, chosen by hash."""
    read = {
        source: [part for document in read_documents(source) for part in passages(document.text)]
        for source in sources
    }
    cap = equal_share((sum(map(len, parts)) for parts in read.values()), sample_bytes)
    chosen = {}
    for source, parts in read.items():
        parts.sort(key=lambda part: sha256(part.encode()).digest())
        kept, size = [], 0
        while parts and size < cap:
            kept.append(parts.pop())
            size += len(kept[-1])
        chosen[source] = kept
    return chosen


def train(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Return a byte-level BPE of `vocab_size` entries; id 0 is the end of text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save(tokenizer: Tokenizer, out: Path) -> None:
    """Write `tokenizer.json` and a `tokenizer_config.json` with left padding and pad = eos."""
    write_text(out / "tokenizer.json", tokenizer.to_str(pretty=True))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000,
    }
    write_text(out / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")


def main() -> None:
    """Read the sample, train, save, and print bytes per token for each source."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, metavar="SRC")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocab-size", type=int, default=4096, help="entries")
    parser.add_argument("--sample-bytes", type=int, default=100_000_000)
    args = parser.parse_args()
    chosen = sample(args.data, args.sample_bytes)
    tokenizer = train((text for parts in chosen.values() for text in parts), args.vocab_size)
    save(tokenizer, args.out)
    for source, parts in chosen.items():
        held = parts[:50]
        n_tokens = sum(len(encoding) for encoding in tokenizer.encode_batch(held))
        n_bytes = sum(len(text.encode()) for text in held)
        print(
            f"{source}: {sum(map(len, parts)) / 1e6:.1f} MB, {n_bytes / n_tokens:.2f} bytes/token"
        )


if __name__ == "__main__":
    main()
