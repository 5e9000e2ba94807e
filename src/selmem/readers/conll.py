"""CoNLL-2003: a word per line with its part of speech, chunk and entity tags."""

from collections.abc import Iterator
from pathlib import Path

from selmem.documents import Document
from selmem.errors import InputError
from selmem.readers.files import read_lines
from selmem.readers.records import ToClass, make_words

_DOCUMENT = "-DOCSTART-"
_N_COLUMNS = 4

_Row = tuple[str, str, str]  # word, part of speech, entity


def read_conll(path: Path, source: str, to_class: ToClass) -> Iterator[Document]:
    """Yield a document per `-DOCSTART-`: words joined by spaces, sentences by line feeds.

    `doc_id` is the document's number from 1. Entities are types per word: B- and I- are merged.

    Raises:
        InputError: a line without four columns, or a part-of-speech tag that is unknown.

    Source: Tjong Kim Sang and De Meulder 2003, https://aclanthology.org/W03-0419.
    """
    sentences: list[list[_Row]] = [[]]
    number, first_line = 1, 1
    for line_number, line in read_lines(path):
        columns = line.split()
        if not columns:
            sentences.append([])
        elif columns[0] == _DOCUMENT:
            if any(sentences):
                yield _document(
                    sentences, source, number, to_class, where=f"{path}, from line {first_line}"
                )
                number += 1
            sentences, first_line = [[]], line_number
        elif len(columns) == _N_COLUMNS:
            sentences[-1].append((columns[0], columns[1], columns[3]))
        else:
            raise InputError(
                f"{path}, line {line_number}: {len(columns)} columns, expected {_N_COLUMNS} "
                "(word, part of speech, chunk, entity)"
            )
    if any(sentences):
        yield _document(
            sentences, source, number, to_class, where=f"{path}, from line {first_line}"
        )


def _document(
    sentences: list[list[_Row]], source: str, number: int, to_class: ToClass, *, where: str
) -> Document:
    rows = [sentence for sentence in sentences if sentence]
    text = "\n".join(" ".join(word for word, _, _ in sentence) for sentence in rows)
    flat = [row for sentence in rows for row in sentence]
    spans: list[tuple[int, int]] = []
    start = 0
    for word, _, _ in flat:
        spans.append((start, start + len(word)))
        start += len(word) + 1
    pos, entities = [row[1] for row in flat], [row[2] for row in flat]
    words = make_words(text, spans, pos, entities, to_class, where=where)
    return Document(doc_id=str(number), source=source, text=text, words=words)
