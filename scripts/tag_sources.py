"""Tag sources once, so that they can be measured where no tagger is installed.

    python scripts/tag_sources.py --data wiki=wiki.eval.jsonl code=code.eval.jsonl --out tagged

Writes OUT/NAME.jsonl.xz for each source, with its documents and the words that spaCy finds in those
that have none: parts of speech and entities, as `selmem measure` would. Licences stay what they
are. With --characters, whole documents are drawn at random until they have as many; with --overlap,
documents of which more than a tenth stands in the training corpus are left out.

Time: one core tags 40,000 characters a second of English prose.
"""

import argparse
import json
import lzma
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from selmem.annotation import annotate
from selmem.corpora import Document, document_record, parse_source, read_documents
from selmem.overlap import read_overlap, without_overlap
from selmem.tables import atomic_path

MAX_SHARE = 0.1  # of a document, in the training corpus
FEW_DOCUMENTS = 30  # below these a test by document has too little to go on


def drawn(
    documents: Sequence[Document], characters: int, *, longest: int | None = None, seed: int = 0
) -> list[Document]:
    """Return documents drawn at random, in their order, with at least so many characters in all.

    There are at least 30 documents, or all of fewer.

    Args:
        documents: all of a source.
        characters: in all.
        longest: characters that are kept of an untagged document; all if None.
        seed: of the draw.
    """
    order = list(range(len(documents)))
    random.Random(seed).shuffle(order)
    kept: dict[int, Document] = {}
    total = 0
    for index in order:
        if total >= characters and len(kept) >= FEW_DOCUMENTS:
            break
        document = documents[index]
        cut = document if document.words else replace(document, text=document.text[:longest])
        kept[index] = cut
        total += len(cut.text)
    return [kept[index] for index in sorted(kept)]


def chosen(source: str, args: argparse.Namespace) -> Iterable[Document]:
    """Return the documents of a source that are to be tagged."""
    documents: Iterator[Document] = read_documents(source)
    if args.overlap is not None:
        overlaps = read_overlap(args.overlap)
        documents = without_overlap(documents, overlaps, max_share=MAX_SHARE)
    if args.characters is None:
        return documents
    return drawn(list(documents), args.characters, longest=args.longest, seed=args.seed)


def main() -> None:
    """Read the arguments and write a file per source."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, metavar="SRC")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--overlap", type=Path, help="file of `selmem overlap`")
    parser.add_argument("--characters", type=int, help="of a source, of whole documents; or all")
    parser.add_argument("--longest", type=int, help="characters kept of a document, if drawn")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    args = parser.parse_args()
    for source in args.data:
        path = args.out / f"{parse_source(source).name}.jsonl.xz"
        if path.exists():
            continue
        with atomic_path(path) as temporary, lzma.open(temporary, "wt", encoding="utf-8") as file:
            for document in tqdm(annotate(chosen(source, args)), desc=path.name, disable=None):
                file.write(json.dumps(document_record(document)) + "\n")


if __name__ == "__main__":
    main()
