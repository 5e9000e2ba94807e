"""Corpora: from what a user names on the command line to documents."""

import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from selmem.corpus_store import is_store
from selmem.documents import Document, Word
from selmem.errors import InputError
from selmem.licences import LICENCES, Licence, licence_of
from selmem.readers.conll import read_conll
from selmem.readers.conllu import read_conllu
from selmem.readers.files import COMPRESSIONS, first_lines, starts_with
from selmem.readers.hub import read_hub
from selmem.readers.plain import UNITS, read_plain
from selmem.readers.records import document_record, read_jsonl, read_parquet
from selmem.readers.store import read_store
from selmem.tags import PosMap

__all__ = [
    "LICENCES",
    "Document",
    "Licence",
    "Source",
    "Word",
    "document_record",
    "licence_of",
    "parse_source",
    "read_documents",
]

logger = logging.getLogger(__name__)

_NAME = re.compile(r"[\w.+-]+")
_HUB = "hub:"
_FORMATS = {
    ".txt": "txt",
    ".text": "txt",
    ".md": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".conll": "conll",
    ".conllu": "conllu",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A parsed `[name=]path[#option]` or `[name=]hub:dataset[:config[:split]][#columns]`.

    Attributes:
        name: the corpus, as it stands in every table.
        address: a path, or what follows `hub:`.
        is_hub: whether `address` is a dataset of the Hub.
        option: "lines", "blocks" or "file" for plain text; columns, between commas, for records;
            the tokenizer for a corpus store.
    """

    name: str
    address: str
    is_hub: bool
    option: str


def parse_source(src: str) -> Source:
    """Return the parts of what a user gave as a source.

    Without a name, it is the file's name without the ending of its format, or the dataset's.

    >>> parse_source("news=data/reuters.jsonl.gz").name, parse_source("data/reuters.jsonl.gz").name
    ('news', 'reuters')
    >>> parse_source("tweets.txt#lines").option, parse_source("hub:org/set:en:test").name
    ('lines', 'set')
    """
    name, equals, rest = src.partition("=")
    if not equals or not _NAME.fullmatch(name) or Path(src).exists():
        name, rest = "", src
    address, _, option = (rest, "", "") if Path(rest).exists() else rest.partition("#")
    is_hub = address.startswith(_HUB)
    address = address.removeprefix(_HUB)
    if not address:
        raise InputError(f"source {src!r} names no file; write PATH, NAME=PATH or hub:DATASET")
    default = address.partition(":")[0].partition("@")[0] if is_hub else _stem(Path(address))
    return Source(name=name or Path(default).name, address=address, is_hub=is_hub, option=option)


def _stem(path: Path) -> str:
    name = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    return name.stem if name.suffix in _FORMATS else name.name


def read_documents(src: str, *, unknown_pos: str | None = None) -> Iterator[Document]:
    """Yield the documents of a source, streamed.

    Records, lines or documents without text are left out and counted in the log.

    Args:
        src: `[name=]path[#option]` or `[name=]hub:dataset[@revision][:config[:split]][#columns]`.
            Plain text (.txt, .md): the file is one document, with `#lines` each line, with
            `#blocks` each block between blank lines. JSON lines (.jsonl, .ndjson) and Parquet:
            a document per record, its text in the column `text` or in the columns named after
            `#`, as in `test.jsonl#question,answer`. CoNLL-2003 (.conll, or by its first line),
            CoNLL-U (.conllu, or by its first line). Text files may be compressed (.gz, .xz, .bz2).
            A corpus store (`folder#tokenizer`, the folder or Hub id of its tokenizer): its texts,
            as they were tokenised, under the names of the sources that it was made of.
        unknown_pos: class for part-of-speech tags of no known scheme, counted in the log; None
            makes such a tag an error.

    Raises:
        InputError: no such file, unknown file type, a defect of the file, or no text in it.
    """
    source = parse_source(src)
    to_class = PosMap(unknown_pos)
    n_found = n_empty = 0
    for document in _reader(source, to_class):
        if document.text.strip():
            n_found += 1
            yield document
        else:
            n_empty += 1
    if not n_found:
        raise InputError(
            f"{source.address} has no text ({n_empty} empty documents); give a source with text"
        )
    if n_empty:
        logger.warning("%s: %d documents without text left out", source.address, n_empty)
    if to_class.unknown_counts:
        logger.warning(
            "%s: unknown tags read as %s: %s",
            source.address,
            unknown_pos,
            dict(to_class.unknown_counts),
        )


def _reader(source: Source, to_class: PosMap) -> Iterator[Document]:
    columns = tuple(filter(None, source.option.split(",")))
    if source.is_hub:
        return read_hub(source.address, source.name, to_class, columns)
    path = Path(source.address)
    if is_store(path):
        return read_store(path, source.option)
    if not path.is_file():
        state = "is a folder; name its files" if path.is_dir() else "does not exist; check the path"
        raise InputError(f"{path} {state}")
    kind = _format(path)
    if kind == "txt":
        return read_plain(path, source.name, _unit(source))
    if kind in {"jsonl", "parquet"}:
        read = read_jsonl if kind == "jsonl" else read_parquet
        return read(path, source.name, to_class, columns)
    if columns:
        raise InputError(f"{path} is {kind}: it takes no option, but #{source.option} was given")
    return _TREEBANKS[kind](path, source.name, to_class)


_TREEBANKS: dict[str, Callable[[Path, str, PosMap], Iterator[Document]]] = {
    "conll": read_conll,
    "conllu": read_conllu,
}


def _unit(source: Source) -> str:
    unit = source.option or "file"
    if unit not in UNITS:
        raise InputError(f"{source.address}: #{unit} is none of {', '.join(UNITS)}")
    return unit


def _format(path: Path) -> str:
    suffix = path.with_suffix("").suffix if path.suffix in COMPRESSIONS else path.suffix
    found = _FORMATS.get(suffix) or _sniff(path)
    if found is None:
        raise InputError(
            f"{path}: unknown file type {suffix!r}; known: {' '.join(_FORMATS)}, "
            "each but .parquet also with .gz, .xz or .bz2, and CoNLL-2003's own files"
        )
    return found


def _sniff(path: Path) -> str | None:
    """Return the format that the first bytes show, None where they show none."""
    if starts_with(path, b"PAR1"):
        return "parquet"
    try:
        lines = first_lines(path, 1)
    except InputError:
        return None
    first = lines[0] if lines else ""
    if first.startswith("-DOCSTART-"):
        return "conll"
    return "conllu" if re.match(r"# (newdoc|sent_id|text|global\.)", first) else None
