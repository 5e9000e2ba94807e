"""CoNLL-U: Universal Dependencies treebanks, with GUM's entities."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from selmem.documents import Document
from selmem.errors import InputError
from selmem.readers.files import read_lines
from selmem.readers.records import ToClass, make_words
from selmem.tags import PENN

_N_COLUMNS = 10
_ID, _FORM, _UPOS, _XPOS, _MISC = 0, 1, 3, 4, 9
# an opening with its fields and, for a one-word mention, the closing; or a closing alone
_BRACKET = re.compile(r"\((?P<opened>[^()]+)(?P<single>\))?|(?P<closed>[^()]+)\)")
_PART = re.compile(r"\[\d+/\d+\]")  # marks the parts of a mention with a gap


@dataclass
class _Builder:
    """A document while its lines are read."""

    doc_id: str
    where: str
    text: str = ""
    separator: str = ""
    spans: list[tuple[int, int]] = field(default_factory=list)
    pos: list[str] = field(default_factory=list)
    entities: list[str | None] = field(default_factory=list)
    type_field: int | None = None  # index of the entity type; None where entities are not annotated
    open_mentions: list[tuple[str, str]] = field(default_factory=list)  # (id, type), inner last

    def document(self, source: str, to_class: ToClass) -> Document:
        words = make_words(
            self.text, self.spans, self.pos, self.entities, to_class, where=self.where
        )
        return Document(doc_id=self.doc_id, source=source, text=self.text, words=words)


def read_conllu(path: Path, source: str, to_class: ToClass) -> Iterator[Document]:
    """Yield a document per `# newdoc`, the whole file where there is none.

    Text is put together from the forms and `SpaceAfter`; a paragraph (`# newpar`) starts on a new
    line. Words are syntactic words ("do", "n't"), or the whole surface of a multiword token that is
    not its words put together ("du"), which has the tags of the first. Empty nodes have no
    characters and are left out. The part of speech comes from the Penn tag (XPOS) where there is
    one, to be comparable with CoNLL-2003, and from UPOS otherwise. Of nested `Entity=` mentions
    (GUM) a word belongs to the innermost: the outermost is often a whole clause. The fields of a
    mention are those that the last `# global.Entity` names.

    Raises:
        InputError: a line without ten columns, an unknown tag, or a mention closed but not opened.

    Source: https://universaldependencies.org/format.html, https://gucorpling.org/gum/.
    """
    builder = _Builder(doc_id="1", where=f"{path}, from line 1")
    rows: list[list[str]] = []
    n_documents = 0
    for number, line in read_lines(path):
        line = line.rstrip("\r\n")
        if line.startswith("# newdoc"):
            if builder.text:
                yield builder.document(source, to_class)
            n_documents += 1
            doc_id = line.partition("=")[2].strip() or str(n_documents)
            where = f"{path}, from line {number}"
            builder = _Builder(doc_id=doc_id, where=where, type_field=builder.type_field)
        elif line.startswith("#"):
            _read_comment(line, builder)
        elif line.strip():
            rows.append(_columns(line, f"{path}, line {number}"))
        else:
            _add_sentence(rows, builder)
            rows = []
    _add_sentence(rows, builder)
    if builder.text:
        yield builder.document(source, to_class)


def _columns(line: str, where: str) -> list[str]:
    columns = line.split("\t")
    if len(columns) != _N_COLUMNS:
        raise InputError(f"{where}: {len(columns)} columns, expected {_N_COLUMNS} between tabs")
    return columns


def _read_comment(line: str, builder: _Builder) -> None:
    if line.startswith("# newpar") and builder.text:
        builder.separator = "\n"
    elif line.startswith("# global.Entity"):
        fields = line.partition("=")[2].strip().split("-")
        builder.type_field = fields.index("etype") if "etype" in fields else None


def _add_sentence(rows: list[list[str]], builder: _Builder) -> None:
    words = [row for row in rows if row[_ID].isdecimal()]
    ranges = {row[_ID].partition("-")[0]: row for row in rows if "-" in row[_ID]}
    position = 0
    while position < len(words):
        surface = ranges.get(words[position][_ID])
        n_words = 1 if surface is None else _range_size(surface)
        _add_token(surface or words[position], words[position : position + n_words], builder)
        position += n_words


def _range_size(row: list[str]) -> int:
    first, _, last = row[_ID].partition("-")
    return int(last) - int(first) + 1


def _add_token(token: list[str], words: list[list[str]], builder: _Builder) -> None:
    start = len(builder.text) + len(builder.separator)
    builder.text += builder.separator + token[_FORM]
    builder.separator = "" if "SpaceAfter=No" in token[_MISC].split("|") else " "
    entities = [_entity(word, builder) for word in words]
    forms = [word[_FORM] for word in words]
    if "".join(forms) != token[_FORM]:
        forms, words = [token[_FORM]], words[:1]
    for form, word, entity in zip(forms, words, entities, strict=False):
        builder.spans.append((start, start + len(form)))
        builder.pos.append(word[_XPOS] if word[_XPOS] in PENN else word[_UPOS])
        builder.entities.append(entity)
        start += len(form)


def _entity(word: list[str], builder: _Builder) -> str | None:
    """Return the innermost mention's type, after the openings and before the closings of a word."""
    if builder.type_field is None:
        return None
    marks = next((m[7:] for m in word[_MISC].split("|") if m.startswith("Entity=")), "")
    closed: list[str] = []
    for match in _BRACKET.finditer(marks):
        if match["opened"]:
            fields = match["opened"].split("-")
            mention = _PART.sub("", fields[0])
            builder.open_mentions.append((mention, fields[builder.type_field]))
            closed += [mention] if match["single"] else []
        else:
            closed.append(_PART.sub("", match["closed"]))
    innermost = builder.open_mentions[-1][1] if builder.open_mentions else "O"
    for mention in closed:
        _close(mention, builder)
    return innermost


def _close(mention: str, builder: _Builder) -> None:
    for index in reversed(range(len(builder.open_mentions))):
        if builder.open_mentions[index][0] == mention:
            del builder.open_mentions[index]
            return
    raise InputError(f"{builder.where}: mention {mention} of {builder.doc_id} closed but not open")
