"""Staging: a folder that holds exactly what one repository on the Hub will hold."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from selmem.cards.dataset import dataset_card
from selmem.cards.models import model_card
from selmem.errors import InputError
from selmem.hub.checksums import folder_files, write_sums
from selmem.hub.dataset_staging import stage_tables
from selmem.hub.models import stage_model
from selmem.hub.spaces import stage_metric, stage_space
from selmem.tables import write_text

KINDS = ("model", "dataset", "metric", "space")


@dataclass(frozen=True, kw_only=True)
class Staged:
    """A folder that is ready to be published.

    Attributes:
        kind: model, dataset, metric or space.
        repo_id: where it will be published.
        folder: the files.
        files: size in bytes of each file, by relative path.
        tag: name of the version.
    """

    kind: str
    repo_id: str
    folder: Path
    files: Mapping[str, int]
    tag: str

    @property
    def repo_type(self) -> str:
        """The Hub's word for the kind of repository."""
        return "space" if self.kind == "metric" else self.kind

    def listing(self) -> str:
        """Return the files and their sizes, one a line, with the total."""
        lines = [f"{size:>12,}  {name}" for name, size in self.files.items()]
        total = f"{sum(self.files.values()):>12,}  bytes in {len(self.files)} files"
        return "\n".join([*lines, f"{total} for {self.repo_type} {self.repo_id}, tag {self.tag}"])


def stage(
    kind: str,
    path: Path,
    repo_id: str,
    templates: Path,
    out: Path,
    *,
    encoder: str | Path | None = None,
) -> Staged:
    """Write what the repository will hold into the empty folder `out`.

    The same inputs give the same bytes, so publishing twice changes nothing.

    Args:
        kind: model, dataset, metric or space.
        path: what `selmem train` or `selmem measure` wrote, or the folder of a Space.
        repo_id: NAMESPACE/NAME on the Hub.
        templates: the checkout's folder `hub_cards`.
        out: absent or empty.
        encoder: where the encoder of a probe is now, if not where its configuration says.

    Raises:
        InputError: an unknown kind, a file that may not be published, a card with a missing
            number, a model that does not do what its configuration says.
    """
    if kind not in KINDS:
        raise InputError(f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if repo_id.count("/") != 1:
        raise InputError(f"the repository is {repo_id!r}, expected NAMESPACE/NAME")
    if not templates.is_dir():
        raise InputError(
            f"{templates} is no folder; `selmem publish` runs in a checkout, or with --templates"
        )
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    _fill(kind, path, repo_id, templates, out, encoder)
    _copy_licence(templates, out)
    write_sums(out)
    files = {name: (out / name).stat().st_size for name in folder_files(out)}
    tag = f"v{version('selmem')}"
    return Staged(kind=kind, repo_id=repo_id, folder=out, files=files, tag=tag)


def _fill(
    kind: str, path: Path, repo_id: str, templates: Path, out: Path, encoder: str | Path | None
) -> None:
    if kind == "model":
        # the card first: a model without results is refused before anything is computed
        write_text(out / "README.md", model_card(path, repo_id, templates))
        stage_model(path, repo_id, out, encoder=encoder)
    elif kind == "dataset":
        splits = stage_tables(path, repo_id.split("/")[0], out)
        write_text(out / "README.md", dataset_card(splits, repo_id, templates))
    elif kind == "metric":
        stage_metric(path, repo_id, templates, out)
    else:
        stage_space(path, repo_id, templates, out)


def _copy_licence(templates: Path, out: Path) -> None:
    licence = templates.resolve().parent / "LICENSE"
    if not licence.is_file():
        raise InputError(f"{licence} does not exist; `selmem publish` runs in a checkout")
    shutil.copyfile(licence, out / "LICENSE")
