"""Is a folder or a repository what was published, and does the model in it do what it did then?"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError

from selmem.bundle import BUNDLED
from selmem.encoder import MambaEncoder, load_encoder
from selmem.errors import InputError
from selmem.hub.checksums import check_sums
from selmem.hub.client_errors import clear_errors
from selmem.hub.known_sentences import (
    check_inversion,
    compare_records,
    record_encoder,
    record_probe,
)
from selmem.json_files import read_object
from selmem.probe import MambaProbeConfig
from selmem.probe_loading import load_probe
from selmem.tables import SCHEMAS, read_table
from selmem.tokenization import load_tokenizer, tokenizer_hash

RECORD_NAME = "verification.json"
MODEL_TYPES = ("mamba", MambaProbeConfig.model_type)


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was verified, and each check that it passed, in words."""

    folder: Path
    kind: str  # encoder | probe | dataset | files
    checks: tuple[str, ...]


def verify(
    target: str | Path,
    *,
    revision: str | None = None,
    encoder: str | Path | None = None,
    endpoint: str | None = None,
) -> Verification:
    """Check a published folder or repository, without running any code from it.

    Args:
        target: local folder or Hub id.
        revision: branch, tag or commit on the Hub.
        encoder: where the encoder of a probe is, if not where its configuration says.
        endpoint: address of the Hub, if not the usual one.

    Raises:
        InputError: names the file or the property that is not as published.
    """
    folder = _fetch(str(target), revision, endpoint)
    checks = [f"{check_sums(folder)} files have their checksums"]
    kind = _kind(folder)
    if kind == "encoder":
        checks += _verify_encoder(folder)
    elif kind == "probe":
        checks += _verify_probe(folder, encoder)
    elif kind == "dataset":
        checks += _verify_dataset(folder)
    return Verification(folder=folder, kind=kind, checks=tuple(checks))


def model_record(folder: Path, encoder: str | Path | None = None) -> dict[str, Any]:
    """Return what verification.json holds for the model in `folder`, after strict loading.

    Args:
        folder: of an encoder or a probe, with its tokenizer.
        encoder: where the encoder of a probe is, if not where its configuration says.

    Raises:
        InputError: weights that are missing, unexpected or not finite, a tokenizer or an encoder
            other than the configuration names, a probe that does not invert.
    """
    tokenizer = load_tokenizer(folder)
    digest = {"tokenizer_hash": tokenizer_hash(tokenizer)}
    if _model_type(folder) == "mamba":
        return {**digest, **record_encoder(load_encoder(folder), tokenizer)}
    probe = load_probe(folder)
    _expect("tokenizer_hash", probe.config.tokenizer_hash, digest["tokenizer_hash"], folder)
    reader = _encoder_of(probe.config, encoder)
    _expect("encoder_fingerprint", probe.config.encoder_fingerprint, reader.fingerprint, folder)
    record = {**digest, **record_probe(probe, reader, tokenizer)}
    check_inversion(record)
    return record


def _verify_encoder(folder: Path) -> list[str]:
    record = read_object(folder / RECORD_NAME, "`selmem publish` records it")
    compare_records(record, model_record(folder))
    return [
        "every weight is there, none too many, all finite",
        f"weights have the recorded fingerprint {record['encoder_fingerprint'][:12]}",
        f"tokenizer has the recorded hash {record['tokenizer_hash'][:12]}",
        "the known sentences give the recorded next tokens",
    ]


def _verify_probe(folder: Path, encoder: str | Path | None) -> list[str]:
    record = read_object(folder / RECORD_NAME, "`selmem publish` records it")
    compare_records(record, model_record(folder, encoder))
    return [
        "every weight is there, none too many, all finite",
        f"encoder has the recorded fingerprint {record['encoder_fingerprint'][:12]}",
        f"tokenizer has the recorded hash {record['tokenizer_hash'][:12]}",
        "the known sentences give the recorded reconstructions: "
        f"{record['matched_tokens']} of {record['tokens']} tokens in place, "
        f"{record['matched_tokens_of_exchanged_states']} from other sentences' states",
    ]


def _verify_dataset(folder: Path) -> list[str]:
    rows = 0
    for path in sorted(folder.glob("data/*/*.parquet")):
        table = read_table(path)
        rows += table.num_rows
        schema = SCHEMAS.get(path.parent.name)
        if schema is None or not set(schema.names) <= set(table.schema.names):
            raise InputError(f"{path} has not the columns of a table {path.parent.name!r}")
    return [f"{rows} rows have the columns of their tables"]


def _fetch(target: str, revision: str | None, endpoint: str | None) -> Path:
    if Path(target).is_dir():
        return Path(target)
    with clear_errors(f"{target} (no local folder)"):
        repo_type = _repo_type(HfApi(endpoint=endpoint), target)
    with clear_errors(target):
        folder = snapshot_download(
            target, repo_type=repo_type, revision=revision, endpoint=endpoint
        )
    return Path(folder)


def _repo_type(api: HfApi, repo_id: str) -> str:
    for repo_type in ("model", "dataset"):
        try:
            api.repo_info(repo_id, repo_type=repo_type)
        except RepositoryNotFoundError:
            continue
        return repo_type
    return "space"


def _kind(folder: Path) -> str:
    if (folder / "config.json").is_file():
        model_type = _model_type(folder)
        if model_type not in MODEL_TYPES:
            raise InputError(
                f"{folder / 'config.json'} names model_type {model_type!r}, expected one of "
                f"{', '.join(MODEL_TYPES)}"
            )
        return "encoder" if model_type == "mamba" else "probe"
    return "dataset" if (folder / "data").is_dir() else "files"


def _model_type(folder: Path) -> object:
    return read_object(folder / "config.json", "expected the folder of a model").get("model_type")


def _encoder_of(config: MambaProbeConfig, given: str | Path | None) -> MambaEncoder:
    """Return the encoder: the one given, else the bundled one of that name, else the Hub's."""
    if given is not None:
        return load_encoder(given)
    name = config.encoder_name_or_path
    if name is None:
        raise InputError("the probe's configuration names no encoder; give its folder or Hub id")
    bundled = BUNDLED / name.rpartition("/")[2]
    if not Path(name).exists() and bundled.is_dir():
        encoder = load_encoder(bundled)
        if encoder.fingerprint == config.encoder_fingerprint:
            return encoder
    return load_encoder(name, revision=config.encoder_revision)


def _expect(name: str, wanted: str | None, found: str | None, folder: Path) -> None:
    if wanted != found:
        raise InputError(
            f"{folder / 'config.json'} asks for {name} {wanted}, but it is {found} here"
        )
