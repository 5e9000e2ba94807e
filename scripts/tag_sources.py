"""Tag sources once, so that they can be measured where no tagger is installed.

    python scripts/tag_sources.py --data wiki=wiki.eval.jsonl code=code.eval.jsonl --out tagged

Writes OUT/NAME.jsonl.xz for each source, with its documents and the words that spaCy finds in those
that have none: parts of speech and entities, as `selmem measure` would. Licences stay what they
are.
"""

import argparse
import json
import lzma
from pathlib import Path

from tqdm import tqdm

from selmem.annotation import annotate
from selmem.corpora import document_record, parse_source, read_documents
from selmem.tables import atomic_path


def main() -> None:
    """Read the arguments and write a file per source."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", required=True, metavar="SRC")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    for source in args.data:
        path = args.out / f"{parse_source(source).name}.jsonl.xz"
        if path.exists():
            continue
        with atomic_path(path) as temporary, lzma.open(temporary, "wt", encoding="utf-8") as file:
            for document in tqdm(annotate(read_documents(source)), desc=path.name, disable=None):
                file.write(json.dumps(document_record(document)) + "\n")


if __name__ == "__main__":
    main()
