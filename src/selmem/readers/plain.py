"""Plain text: a file, its lines, or its blocks between blank lines, as documents."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from selmem.documents import Document
from selmem.readers.files import read_lines

UNITS = ("file", "lines", "blocks")


def read_plain(path: Path, source: str, unit: str = "file") -> Iterator[Document]:
    """Yield documents of plain text, those without text included.

    Args:
        path: the file, plain or compressed.
        source: name of the corpus.
        unit: "file" (one document, `doc_id` "1"), "lines" (one per line, `doc_id` the line's
            number, so that two line-aligned files pair by it) or "blocks" (blank lines between,
            `doc_id` the block's first line).
    """
    for number, text in _UNITS[unit](path):
        yield Document(doc_id=str(number), source=source, text=text)


def _whole(path: Path) -> Iterator[tuple[int, str]]:
    yield 1, "".join(line for _, line in read_lines(path))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in read_lines(path):
        yield number, line.rstrip("\r\n")


def _blocks(path: Path) -> Iterator[tuple[int, str]]:
    for has_text, group in groupby(read_lines(path), key=lambda item: bool(item[1].strip())):
        if has_text:
            lines = list(group)
            yield lines[0][0], "".join(line for _, line in lines).rstrip("\r\n")


_UNITS = {"file": _whole, "lines": _lines, "blocks": _blocks}
