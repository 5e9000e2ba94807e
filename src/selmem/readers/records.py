"""Records with a text, from JSON lines, Parquet or the Hub, as documents."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from selmem.documents import Document, Word
from selmem.errors import InputError
from selmem.readers.files import read_lines
from selmem.tags import entity_type, kinds, pos_class

ToClass = Callable[[str], str]
_ID_KEYS = ("doc_id", "id")


def read_jsonl(
    path: Path, source: str, to_class: ToClass, columns: Sequence[str] = ()
) -> Iterator[Document]:
    """Yield a document per line of JSON; see `record_document` for what a record may hold.

    A record without an id is named by its line number.

    Raises:
        InputError: a line is no JSON object, or not a record; the message has its number.
    """
    for number, line in read_lines(path):
        if line.strip():
            where = f"{path}, line {number}"
            record = _parse(line, where)
            yield record_document(
                record, source, str(number), to_class, where=where, columns=columns
            )


def _parse(line: str, where: str) -> Mapping[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error.msg} at character {error.pos})") from error
    if not isinstance(record, dict):
        raise InputError(
            f'{where}: expected an object such as {{"text": "..."}}, not {line[:40]!r}'
        )
    return record


def read_parquet(
    path: Path, source: str, to_class: ToClass, columns: Sequence[str] = ()
) -> Iterator[Document]:
    """Yield a document per row; a row without an id is named by its number, from 1.

    Raises:
        InputError: the file is truncated or no Parquet, or has no text column.
    """
    try:
        number = 0
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for record in batch.to_pylist():
                    number += 1
                    where = f"{path}, row {number}"
                    yield record_document(
                        record, source, str(number), to_class, where=where, columns=columns
                    )
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a whole Parquet file ({error}); copy it again") from error


def record_document(
    record: Mapping[str, Any],
    source: str,
    default_id: str,
    to_class: ToClass = pos_class,
    *,
    where: str,
    columns: Sequence[str] = (),
    split: str | None = None,
) -> Document:
    r"""Return the document of one record.

    Args:
        record: `text`, and optionally `words` (objects with `start`, `end` and optionally `pos`
            and `entity`); or `tokens`, which are joined by single spaces, with optional lists
            `pos_tags` and `ner_tags`. Null in place of a text is an empty one. The id is `doc_id`,
            `id` or `meta.id`.
        source: name of the corpus.
        default_id: id of a record without one.
        to_class: from a part-of-speech tag to its class.
        where: file and line, for errors.
        columns: take the text from these columns instead, one below the other.
        split: part of the corpus.

    Raises:
        InputError: no text column, tags and words of unequal number, or words outside the text.
    """
    words: tuple[Word, ...] = ()
    if columns:
        text = _joined(record, columns, where)
    elif record.get("text") is not None:
        text = _string(record["text"], "text", where)
        words = _spans(record.get("words") or (), text, to_class, where)
    elif record.get("tokens") is not None:
        text, words = _tagged(record, to_class, where)
    elif "text" in record or "tokens" in record:
        text = ""
    else:
        raise InputError(
            f"{where}: no column `text` or `tokens`; it has {', '.join(record) or 'none'}; "
            "name the text's columns after the path, as in file.jsonl#question,answer"
        )
    doc_id = _record_id(record) or default_id
    return Document(doc_id=doc_id, source=source, text=text, words=words, split=split)


def _record_id(record: Mapping[str, Any]) -> str | None:
    meta = record.get("meta")
    places = (record, meta) if isinstance(meta, dict) else (record,)
    found = (place[key] for place in places for key in _ID_KEYS if place.get(key) is not None)
    return next((str(value) for value in found), None)


def _string(value: object, column: str, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: column `{column}` holds {type(value).__name__}, not text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: column `{column}` holds half a surrogate pair at character {error.start}"
        ) from error
    return value


def _joined(record: Mapping[str, Any], columns: Sequence[str], where: str) -> str:
    parts: list[str] = []
    for column in columns:
        if column not in record:
            raise InputError(f"{where}: no column `{column}`; it has {', '.join(record)}")
        value = record[column]
        values = value if isinstance(value, list) else [value]
        parts += [_string(v, column, where) for v in values if v is not None]
    return "".join(
        part if part.endswith("\n") or last else part + "\n"
        for part, last in zip(parts, [False] * (len(parts) - 1) + [True], strict=True)
    )


def _spans(entries: Sequence[Any], text: str, to_class: ToClass, where: str) -> tuple[Word, ...]:
    spans: list[tuple[int, int]] = []
    for entry in entries:
        try:
            start, end = int(entry["start"]), int(entry["end"])
        except (TypeError, KeyError, ValueError) as error:
            raise InputError(f"{where}: a word needs `start` and `end`, not {entry!r}") from error
        floor = spans[-1][1] if spans else 0
        if not floor <= start < end <= len(text):
            raise InputError(
                f"{where}: word [{start}, {end}) is empty, overlaps the word before it, or leaves "
                f"the text of {len(text)} characters"
            )
        spans.append((start, end))
    return make_words(
        text,
        spans,
        [entry.get("pos") for entry in entries],
        [entry.get("entity") for entry in entries],
        to_class,
        where=where,
    )


def _tagged(
    record: Mapping[str, Any], to_class: ToClass, where: str
) -> tuple[str, tuple[Word, ...]]:
    tokens = [_string(token, "tokens", where) for token in record["tokens"]]
    none = [None] * len(tokens)
    pos, entities = (record.get(column) or none for column in ("pos_tags", "ner_tags"))
    for column, tags in (("pos_tags", pos), ("ner_tags", entities)):
        if len(tags) != len(tokens):
            raise InputError(
                f"{where}: {len(tokens)} tokens but {len(tags)} `{column}`; "
                "expected one for each token"
            )
    text, spans = " ".join(tokens), []
    start = 0
    for token in tokens:
        spans.append((start, start + len(token)))
        start += len(token) + 1
    return text, make_words(text, spans, pos, entities, to_class, where=where)


def make_words(
    text: str,
    spans: Sequence[tuple[int, int]],
    pos: Sequence[str | None],
    entities: Sequence[str | None],
    to_class: ToClass = pos_class,
    *,
    where: str,
) -> tuple[Word, ...]:
    """Return words with their tags mapped to classes and their kinds.

    Args:
        text: text of the document.
        spans: first and one past the last character of each word.
        pos: a part-of-speech tag of any known scheme per word, or None.
        entities: a BIO or bare entity tag per word, or None.
        to_class: from a part-of-speech tag to its class.
        where: file and line, for errors.

    Raises:
        InputError: a part-of-speech tag of no known scheme.
    """
    surfaces = [text[start:end] for start, end in spans]
    try:
        classes = [None if tag is None else to_class(tag) for tag in pos]
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    return tuple(
        Word(
            start=start,
            end=end,
            pos=name,
            entity=None if entity is None else entity_type(entity),
            kind=kind,
        )
        for (start, end), name, entity, kind in zip(
            spans, classes, entities, kinds(surfaces), strict=True
        )
    )


def document_record(document: Document) -> dict[str, Any]:
    """Return the record from which `record_document` makes the same document again."""
    record: dict[str, Any] = {"doc_id": document.doc_id, "text": document.text}
    if document.words:
        record["words"] = [
            {"start": word.start, "end": word.end, "pos": word.pos, "entity": word.entity}
            for word in document.words
        ]
    return record
