"""The causal frequency experiment, but for the training: pairs, corpora, text to measure, effects.

    python scripts/causal_frequency.py choose --data wiki=wiki.jsonl.xz ... --tokenizer tokenizer \
        --evaluate wiki=wiki.eval.jsonl ... --out causal/pairs.jsonl
    python scripts/causal_frequency.py passages --pairs causal/pairs.jsonl \
        --evaluate wiki=wiki.eval.jsonl ... --out causal/evaluation.jsonl
    python scripts/causal_frequency.py build --data wiki=wiki.jsonl.xz ... --tokenizer tokenizer \
        --pairs causal/pairs.jsonl --out causal --jobs 8
    ... train encoders A and B, and their readers, and measure them: stage `causal` of study.py ...
    python scripts/causal_frequency.py effects --pairs causal/pairs.jsonl --out causal/effects \
        A-A-0=causal/measured/a-a-0 A-B-0=causal/measured/a-b-0 ...

`choose` tags a sample of the corpus with spaCy and writes pairs of words that are alike in class,
tokens and frequency; with --evaluate, of words that stand often enough in the text to measure.
`passages` writes passages of that text in which the words stand. `build` makes the corpus stores
A and B (9 in 10 occurrences of each first word replaced by the second, and the reverse); its --data
may be a store too, as in `corpus#tokenizer` (see build_corpus.py). `effects` takes
ENCODER-READER-SEED=FOLDER of all measurements and writes effects.parquet and effects.png.

Time on one core for 300 MB of text: `choose --tagged 2000` 3.5 minutes, `build` about 4.5 minutes a
corpus (28 s for a tenth), shared out among --jobs processes.
"""

import argparse
import json
from collections import Counter
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
    if args.evaluate:
        there = count_words(document.text for document in documents(args.evaluate))
        counts = Counter({word: n for word, n in counts.items() if there[word] >= args.occurrences})
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
    """Write the corpus stores."""
    pairs = read_pairs(args.pairs)
    tokenizer = load_tokenizer(args.tokenizer)
    for corpus in args.corpora:
        swap = WordSwap.of_corpus(corpus, pairs)
        out = args.out / f"corpus-{corpus.lower()}"
        store = build_store(args.data, tokenizer, out, swap=swap, jobs=args.jobs)
        replaced = sum(store.summary["n_replaced"].values())
        print(f"{store.path}: {store.summary['n_tokens']} tokens, {replaced} words replaced")


def passages(args: argparse.Namespace) -> None:
    """Write the text to measure."""
    words = [word for pair in read_pairs(args.pairs) for word in (pair.first, pair.second)]
    found = choose_passages(
        documents(args.evaluate), words, per_word=args.per_word, n_words=args.passage_words
    )
    write_text(args.out, "".join(json.dumps(passage) + "\n" for passage in found))
    print(f"{len(found)} passages for {len(words)} words in {args.out}")


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
    """Run one of the four commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    first = commands.add_parser("choose", help="write pairs of words that are alike")
    first.add_argument("--n-pairs", type=int, default=200)
    first.add_argument("--per-million", type=float, nargs=2, default=(15.0, 150.0))
    first.add_argument("--tagged", type=int, default=6_000, help="documents, over all sources")
    first.add_argument("--seed", type=int, default=0)
    first.add_argument("--evaluate", nargs="+", default=[], metavar="SRC", help="text to measure")
    first.add_argument("--occurrences", type=int, default=30, help="of a word there, at least")
    first.add_argument("--out", type=Path, required=True)
    first.set_defaults(run=choose)
    second = commands.add_parser("passages", help="write the text to measure")
    second.add_argument("--pairs", type=Path, required=True)
    second.add_argument("--evaluate", nargs="+", required=True, metavar="SRC")
    second.add_argument("--per-word", type=int, default=20, help="passages")
    second.add_argument("--passage-words", type=int, default=64)
    second.add_argument("--out", type=Path, required=True)
    second.set_defaults(run=passages)
    third = commands.add_parser("build", help="write the corpora")
    third.add_argument("--pairs", type=Path, required=True)
    third.add_argument("--corpora", nargs="+", choices="AB", default="AB")
    third.add_argument("--jobs", type=int, default=1, help="processes")
    third.add_argument("--out", type=Path, required=True)
    third.set_defaults(run=build)
    for command in (first, third):
        command.add_argument("--data", nargs="+", required=True, metavar="SRC")
        command.add_argument("--tokenizer", required=True, help="folder or Hub id")
    fourth = commands.add_parser("effects", help="write the table and the figure")
    fourth.add_argument("cells", nargs="+", metavar="ENCODER-READER-SEED=FOLDER")
    fourth.add_argument("--pairs", type=Path, required=True)
    fourth.add_argument("--out", type=Path, required=True)
    fourth.set_defaults(run=effects)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
