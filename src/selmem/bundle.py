"""The models and texts that come with the package."""

from pathlib import Path

from selmem.errors import InputError

BUNDLED = Path(__file__).parent / "bundled"


def bundled_path(name: str) -> Path:
    """Return the folder of what is bundled under `name`, e.g. "mamba-tiny".

    Raises:
        InputError: when nothing is bundled under that name; lists the names.
    """
    names = sorted(path.name for path in BUNDLED.iterdir()) if BUNDLED.is_dir() else []
    if name not in names:
        raise InputError(
            f"nothing is bundled as {name!r}; bundled are {', '.join(names) or 'none'}"
        )
    return BUNDLED / name
