# SPDX-License-Identifier: Apache-2.0
"""The three forms of predictions and references, and the tables they can be read from."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .alignment import TokenWords
from .rules import Pretokens, Reference, split_words

_COLUMNS = ("char_start", "char_end", "token_start", "n_tokens", "cut")


@dataclass(frozen=True)
class Pairs:
    """References and reconstructions in the shape that each rule wants; all lists alike long."""

    references: list[Reference]  # rule count
    reconstructions: list[Pretokens]
    token_references: list[TokenWords]  # rule aligned
    token_reconstructions: list[list[int]]
    cut: list[list[bool]]  # for every word
    groups: list[int]  # chance compares texts of one group: in the token form, of one length


def read_pairs(predictions: Sequence[Any], references: Sequence[Any]) -> Pairs:
    """Read strings, lists of words, or token records.

    Raises:
        ValueError: there is nothing to read, or a record does not fit together.
    """
    if not len(references):
        raise ValueError("there are no references; give at least one")
    if isinstance(references[0], Mapping):
        return _from_records(predictions, references)
    if isinstance(references[0], str):
        predictions = [split_words(text) for text in predictions]
        references = [split_words(text) for text in references]
    return _from_words(predictions, references)


def _from_words(predictions: Sequence[list[str]], references: Sequence[list[str]]) -> Pairs:
    numbers: dict[str, int] = defaultdict(lambda: len(numbers))
    ids = [[numbers[word] for word in words] for words in references]
    return Pairs(
        references=[Reference.of_words(words) for words in references],
        reconstructions=[Pretokens.of_words(words) for words in predictions],
        token_references=[
            TokenWords(row, [(index, index + 1) for index in range(len(row))]) for row in ids
        ],
        token_reconstructions=[[numbers[word] for word in words] for words in predictions],
        cut=[[False] * len(words) for words in references],
        groups=[0] * len(references),
    )


def _from_records(
    predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
) -> Pairs:
    for index, row in enumerate(references):
        if len({len(row[column]) for column in _COLUMNS}) > 1:
            lengths = {column: len(row[column]) for column in _COLUMNS}
            raise ValueError(f"reference {index} describes unequal numbers of words: {lengths}")
    return Pairs(
        references=[
            Reference.of_spans(
                Pretokens.of_text(row["text"], row["pretoken_ends"]),
                list(zip(row["char_start"], row["char_end"], strict=True)),
                row["cut"],
            )
            for row in references
        ],
        reconstructions=[
            Pretokens.of_text(row["text"], row["pretoken_ends"]) for row in predictions
        ],
        token_references=[
            TokenWords(
                row["token_ids"],
                [(a, a + n) for a, n in zip(row["token_start"], row["n_tokens"], strict=True)],
            )
            for row in references
        ],
        token_reconstructions=[row["token_ids"] for row in predictions],
        cut=[row["cut"] for row in references],
        groups=[len(row["token_ids"]) for row in references],
    )


def read_tables(
    chunks: Iterable[Mapping[str, Any]],
    reconstructions: Iterable[Mapping[str, Any]],
    words: Iterable[Mapping[str, Any]],
    *,
    tag: str,
) -> dict[str, list[Any]]:
    """Return the arguments of `compute` for rows of the published tables.

    Args:
        chunks: rows of the table `chunks`, of one source and length.
        reconstructions: rows of the table `reconstructions`; decides which chunks are scored.
        words: rows of the table `words`.
        tag: the column of `words` to break the rates down by: "pos", "entity" or "kind".

    Returns:
        predictions, references, tags, documents.

    Raises:
        ValueError: a reconstruction has no row in `chunks`, or a text is withheld.
    """
    chunk_rows = {row["chunk_id"]: row for row in chunks}
    word_rows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in words:
        word_rows[row["chunk_id"]].append(row)
    inputs: dict[str, list[Any]] = {
        name: [] for name in ("predictions", "references", "tags", "documents")
    }
    for row in reconstructions:
        if (chunk := chunk_rows.get(row["chunk_id"])) is None:
            raise ValueError(f"chunk {row['chunk_id']} is not in the table chunks")
        if chunk["text"] is None or row["text"] is None:
            raise ValueError(
                f"the text of chunk {row['chunk_id']} is not published, so it cannot be scored; "
                "leave out the sources whose licence forbids it"
            )
        own = sorted(word_rows[row["chunk_id"]], key=lambda word: word["word_index"])
        inputs["predictions"].append(_text_record(row))
        inputs["references"].append(
            {**_text_record(chunk), **{name: [word[name] for word in own] for name in _COLUMNS}}
        )
        inputs["tags"].append([word[tag] for word in own])
        inputs["documents"].append(chunk["doc_id"])
    return inputs


def _text_record(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("text", "pretoken_ends", "token_ids")}
