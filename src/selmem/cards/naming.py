"""Names of models on the Hub."""

import re
from pathlib import Path


def hub_id(name_or_path: str, namespace: str) -> str:
    """Return a Hub id as it is, and a path as `namespace` and its last part.

    >>> hub_id("state-spaces/mamba-130m-hf", "me"), hub_id("/tmp/out/my-probe/", "me")
    ('state-spaces/mamba-130m-hf', 'me/my-probe')
    """
    if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name_or_path) and not Path(name_or_path).exists():
        return name_or_path
    return f"{namespace}/{Path(name_or_path).resolve().name}"
