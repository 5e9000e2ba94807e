"""Staging of Spaces: the metric as it is, the demo with a copy of this package."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import selmem
from selmem.cards.spaces import metric_card, space_card
from selmem.errors import InputError
from selmem.tables import write_text

PACKAGE = Path(selmem.__file__).parent
TEXT = (".py", ".md", ".txt", ".json", ".toml", ".css")
PACKAGE_DATA = (*TEXT, ".safetensors", ".jsonl", ".parquet", ".typed", ".jinja", ".j2", ".html")
LEFT_OUT = ("__pycache__", ".cache")


def stage_metric(path: Path, repo_id: str, templates: Path, out: Path) -> None:
    """Copy the metric's folder as it is; the card is made anew.

    Raises:
        InputError: the script is not named after the repository, or a file is no text.
    """
    name = repo_id.split("/")[1]
    if not (path / f"{name}.py").is_file():
        raise InputError(
            f"{path} has no {name}.py; evaluate.load({repo_id!r}) looks for a script of that name"
        )
    _copy(path, out, TEXT)
    write_text(out / "README.md", metric_card(path, repo_id, templates))


def stage_space(path: Path, repo_id: str, templates: Path, out: Path) -> None:
    """Copy the demo's folder and, beside its app, the sources of this package and the tables.

    Raises:
        InputError: there is no app.py, or a file of another kind.
    """
    if not (path / "app.py").is_file():
        raise InputError(f"{path} has no app.py; give the folder of a Space")
    _copy(path, out, TEXT)
    _copy(PACKAGE, out / "selmem", PACKAGE_DATA)
    _copy(templates / "tables", out / "tables", (".parquet",))
    # the package asks for its own version, and in a Space nobody installs it
    version = selmem.__version__
    write_text(
        out / f"selmem-{version}.dist-info" / "METADATA",
        f"Metadata-Version: 2.1\nName: selmem\nVersion: {version}\n",
    )
    write_text(out / "README.md", space_card(path, repo_id, templates))


def _copy(folder: Path, out: Path, endings: tuple[str, ...]) -> None:
    for file in _files(folder):
        if file.suffix not in endings:
            raise InputError(f"{file} is no file of a Space; move it away")
        target = out / file.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not set(path.relative_to(folder).parts) & set(LEFT_OUT):
            yield path
