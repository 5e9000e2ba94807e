"""SHA256SUMS: written beside every published file, checked before anything is loaded."""

import re
from hashlib import file_digest
from pathlib import Path

from selmem.errors import InputError
from selmem.tables import write_text

SUMS_NAME = "SHA256SUMS"
# what a Hub repository and its local copy hold beside the published files
UNLISTED = (SUMS_NAME, ".gitattributes")
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def folder_files(folder: Path) -> list[str]:
    """Return the relative POSIX paths of all files under `folder`, sorted, but for local caches."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".cache")
    )


def file_sha256(path: Path) -> str:
    """Return the SHA-256 (hex) of the bytes of one file."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path) -> Path:
    """Write SHA256SUMS over every other file of `folder`, in the format of `sha256sum`."""
    names = [name for name in folder_files(folder) if name not in UNLISTED]
    path = folder / SUMS_NAME
    write_text(path, "".join(f"{file_sha256(folder / name)}  {name}\n" for name in names))
    return path


def check_sums(folder: Path) -> int:
    """Compare every file with SHA256SUMS and return their number.

    Raises:
        InputError: SHA256SUMS is absent or malformed, a file is absent, not listed or changed; it
            names the file.
    """
    expected = _read_sums(folder / SUMS_NAME)
    present = set(folder_files(folder)) - set(UNLISTED)
    for name in sorted(expected.keys() - present):
        raise InputError(f"{folder / name} is listed in {SUMS_NAME} and absent; get it again")
    for name in sorted(present - expected.keys()):
        raise InputError(f"{folder / name} is not listed in {SUMS_NAME}; it was not published")
    for name, digest in sorted(expected.items()):
        if file_sha256(folder / name) != digest:
            size = (folder / name).stat().st_size
            raise InputError(
                f"{folder / name} ({size} bytes) differs from its checksum in {SUMS_NAME}: "
                "truncated or altered; get it again"
            )
    return len(expected)


def _read_sums(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise InputError(f"{path} does not exist; `selmem publish` writes it into what it stages")
    lines = path.read_text(encoding="utf-8").splitlines()
    matches = [_LINE.fullmatch(line) for line in lines]
    for line, match in zip(lines, matches, strict=True):
        if match is None:
            raise InputError(f"{path} is malformed at {line[:80]!r}; expected 'SHA256  FILE'")
    return {match[2]: match[1] for match in matches if match}
