"""Readings made beforehand, so that the page shows something before any model is loaded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selmem.errors import InputError
from selmem.space.records import Reading
from selmem.tables import write_text


@dataclass(frozen=True)
class Example:
    """A reading and what its button says."""

    label: str
    reading: Reading


def read_examples(path: Path) -> tuple[Example, ...]:
    """Return the stored examples; none where there is no file.

    Raises:
        InputError: the file holds something else.
    """
    if not path.is_file():
        return ()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return tuple(
            Example(entry["label"], Reading.from_dict(entry["reading"]))
            for entry in content["examples"]
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} does not hold examples of this version; make it again with "
            "scripts/space_examples.py"
        ) from error


def write_examples(path: Path, examples: Sequence[Example], *, fingerprint: str | None) -> None:
    """Store examples, one a line.

    Args:
        path: JSON file.
        examples: in the order of the page.
        fingerprint: of the encoder that they were made with.
    """
    lines = [
        json.dumps(
            {"label": example.label, "reading": example.reading.to_dict()},
            ensure_ascii=False,
            separators=(",", ":"),
        )
        for example in examples
    ]
    head = json.dumps({"encoder_fingerprint": fingerprint})[:-1]
    body = ",\n".join(lines)
    write_text(path, f'{head}, "examples": [\n{body}\n]}}\n')
