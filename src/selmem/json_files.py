"""JSON files that hold one object: configurations and records."""

import json
from pathlib import Path
from typing import Any

from selmem.errors import InputError


def read_object(path: Path, mend: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Args:
        path: of the file.
        mend: what to do where there is none, as the message ends.

    Raises:
        InputError: it is absent, no JSON, or something other than an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; {mend}") from error
    except ValueError as error:
        raise InputError(f"{path} is no JSON ({error}); {mend}") from error
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise InputError(f"{path} holds a {kind}, expected names and values; {mend}")
    return content
