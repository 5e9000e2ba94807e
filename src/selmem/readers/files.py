"""Text files, plain or compressed, with errors that name the file, the line and the byte."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from selmem.errors import InputError

_BOM = b"\xef\xbb\xbf"
_OPENERS: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".bz2": bz2.open,
}
COMPRESSIONS = tuple(_OPENERS)


def _open(path: Path) -> IO[bytes]:
    stream: IO[bytes] = _OPENERS.get(path.suffix, open)(path, "rb")
    return stream


def _decode(raw: bytes, path: Path, line: int, offset: int) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {line}: byte {raw[error.start]:#04x} at offset {offset + error.start} "
            "is not UTF-8; convert the file to UTF-8"
        ) from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, from 1; the line keeps its line feed.

    A byte order mark at the start is left out.

    Raises:
        InputError: the file is not UTF-8 (with the byte's offset after decompression), cannot be
            opened, or its compressed stream is damaged.
    """
    offset = 0
    try:
        with _open(path) as stream:
            for number, line in enumerate(stream, start=1):
                raw = line.removeprefix(_BOM) if number == 1 else line
                yield number, _decode(raw, path, number, offset + len(line) - len(raw))
                offset += len(line)
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is damaged or truncated: {error}; copy it again") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error


def first_lines(path: Path, n_lines: int) -> list[str]:
    """Return up to `n_lines` of the first lines that are not blank, without their line feeds."""
    found: list[str] = []
    for _, line in read_lines(path):
        if line.strip():
            found.append(line.rstrip("\r\n"))
        if len(found) == n_lines:
            break
    return found


def starts_with(path: Path, magic: bytes) -> bool:
    """Whether the file begins with these bytes."""
    with path.open("rb") as stream:
        return stream.read(len(magic)) == magic
