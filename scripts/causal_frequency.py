"""The causal frequency experiment, but for the training: pairs, corpora, text to measure, effects.

    python scripts/causal_frequency.py choose --data wiki=wiki.jsonl.xz ... --tokenizer tokenizer \
        --out causal/pairs.jsonl
    python scripts/causal_frequency.py build --data wiki=wiki.jsonl.xz ... --tokenizer tokenizer \
        --pairs causal/pairs.jsonl --evaluate wiki=wiki.eval.jsonl ... --out causal
    ... train encoders A and B, and their readers, and measure them: stage `causal` of study.py ...
    python scripts/causal_frequency.py effects --pairs causal/pairs.jsonl --out causal/effects \
        A-A-0=causal/measured/a-a-0 A-B-0=causal/measured/a-b-0 ...

`choose` tags a sample of the corpus with spaCy and writes pairs of words that are alike in class,
tokens and frequency. `build` makes the corpus stores A and B (9 in 10 occurrences of each first
word replaced by the second, and the reverse) and evaluation.jsonl, passages of other documents in
which the words stand. `effects` takes ENCODER-READER-SEED=FOLDER of all measurements and writes
effects.parquet and effects.png.

Time on two cores for 300 MB of text: not yet measured.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from selmem.analysis.causal import Cell, causal_table
from selmem.annotation import annotate
from selmem.corpora import Document, read_documents
from selmem.corpus_building import build_store
from selmem.errors import InputError
from selmem.figures.causal import causal_effects
from selmem.resampling import Resampling
from selmem.tables import write_table, write_text
from selmem.tokenization import load_tokenizer
from selmem.word_pairs import (
    WordSwap,
    choose_pairs,
    choose_passages,
    count_words,
    find_candidates,
    read_pairs,
    word_classes,
    write_pairs,
)

PASSAGE = 4_000  # characters of a document that are tagged, so that no long one fills the sample


def documents(sources: list[str]) -> Iterator[Document]:
    """Yield the documents of all sources."""
    for source in sources:
        yield from read_documents(source)


def choose(args: argparse.Namespace) -> None:
    """Write the word pairs."""
    counts = count_words(document.text for document in documents(args.data))
    millions = counts.total() / 1e6
    pieces = (
        Document(doc_id=d.doc_id, source=d.source, text=d.text[:PASSAGE])
        for source in args.data
        for d in islice(read_documents(source), args.tagged // len(args.data))
    )
    candidates = find_candidates(
        counts,
        word_classes(annotate(pieces)),
        load_tokenizer(args.tokenizer),
        least=round(args.per_million[0] * millions),
        most=round(args.per_million[1] * millions),
    )
    pairs = choose_pairs(candidates, args.n_pairs, seed=args.seed)
    write_pairs(pairs, args.out)
    print(f"{len(candidates)} candidates, {len(pairs)} pairs in {args.out}")


def build(args: argparse.Namespace) -> None:
    """Write both corpus stores and the text to measure."""
    pairs = read_pairs(args.pairs)
    tokenizer = load_tokenizer(args.tokenizer)
    for corpus in "AB":
        swap = WordSwap.of_corpus(corpus, pairs)
        store = build_store(args.data, tokenizer, args.out / f"corpus-{corpus.lower()}", swap=swap)
        replaced = sum(store.summary["n_replaced"].values())
        print(f"{store.path}: {store.summary['n_tokens']} tokens, {replaced} words replaced")
    words = [word for pair in pairs for word in (pair.first, pair.second)]
    passages = choose_passages(documents(args.evaluate), words, per_word=args.per_word)
    lines = "".join(json.dumps(passage) + "\n" for passage in passages)
    write_text(args.out / "evaluation.jsonl", lines)
    print(f"{len(passages)} passages for {len(words)} words in {args.out / 'evaluation.jsonl'}")


def effects(args: argparse.Namespace) -> None:
    """Write the table and the figure of effects."""
    table = causal_table(
        [parse_cell(given) for given in args.cells], read_pairs(args.pairs), Resampling()
    )
    path = args.out / "effects.parquet"
    write_table(pa.Table.from_pandas(table, preserve_index=False), path, metadata={})
    figure = causal_effects(table)
    if figure is not None:
        figure.savefig(args.out / "effects.png")
    shown = table[(table["seed"] == "all") & table["group"].isin(("all", "other words"))]
    columns = ["length", "outcome", "effect", "value", "ci_low", "ci_high"]
    print(shown[columns].to_string(index=False, float_format=lambda value: f"{value:.4f}"))


def parse_cell(given: str) -> Cell:
    """Return the cell of ENCODER-READER-SEED=FOLDER.

    >>> parse_cell("A-B-2=measured/x")
    Cell(encoder='A', reader='B', seed=2, folder=PosixPath('measured/x'))
    """
    name, equals, folder = given.partition("=")
    parts = name.split("-")
    if not equals or len(parts) != 3 or not parts[2].isdigit():
        raise InputError(f"{given!r} is not ENCODER-READER-SEED=FOLDER, as in A-B-0=measured/a-b-0")
    return Cell(encoder=parts[0], reader=parts[1], seed=int(parts[2]), folder=Path(folder))


def main() -> None:
    """Run one of the three commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    first = commands.add_parser("choose", help="write pairs of words that are alike")
    first.add_argument("--n-pairs", type=int, default=200)
    first.add_argument("--per-million", type=float, nargs=2, default=(15.0, 150.0))
    first.add_argument("--tagged", type=int, default=6_000, help="documents, over all sources")
    first.add_argument("--seed", type=int, default=0)
    first.add_argument("--out", type=Path, required=True)
    first.set_defaults(run=choose)
    second = commands.add_parser("build", help="write the corpora and the text to measure")
    second.add_argument("--pairs", type=Path, required=True)
    second.add_argument("--evaluate", nargs="+", required=True, metavar="SRC")
    second.add_argument("--per-word", type=int, default=20, help="passages")
    second.add_argument("--out", type=Path, required=True)
    second.set_defaults(run=build)
    for command in (first, second):
        command.add_argument("--data", nargs="+", required=True, metavar="SRC")
        command.add_argument("--tokenizer", required=True, help="folder or Hub id")
    third = commands.add_parser("effects", help="write the table and the figure")
    third.add_argument("cells", nargs="+", metavar="ENCODER-READER-SEED=FOLDER")
    third.add_argument("--pairs", type=Path, required=True)
    third.add_argument("--out", type=Path, required=True)
    third.set_defaults(run=effects)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
