"""One measurement, from models and sources to tables.

The models' part is done batch by batch; each batch leaves a file, so an interrupted run goes on
where it stopped and several processes can share the work. The tables are then made in one go.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from hashlib import file_digest
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from selmem.corpora import parse_source
from selmem.corpus_store import CorpusStore, open_store
from selmem.encoder import fingerprint
from selmem.errors import InputError
from selmem.measurement.cells import Cell
from selmem.measurement.config import MeasureConfig
from selmem.measurement.models import find_processes, load_models, probe_names, require_lengths
from selmem.measurement.scoring import Models
from selmem.measurement.selection import select_chunks
from selmem.measurement.work import PARTIAL, MeasurementWork
from selmem.overlap import read_overlap
from selmem.tables import WHOLE_TEXT, config_hash, require_writable, write_text
from selmem.tokenization import tokenizer_hash

logger = logging.getLogger(__name__)

CONFIG, RUN = "config.json", "run.json"


def measure(config: MeasureConfig) -> Path:
    """Write the tables chunks, reconstructions, tokens and words, and run.json; return the folder.

    An interrupted run continues where it stopped; a finished one is left as it is.

    Raises:
        InputError: models that do not belong together, text that is too short, a folder that
            cannot be written or holds a measurement of another configuration.
    """
    require_writable(config.out)
    processes = find_processes(config.device)
    models, tokenizer = load_models(
        config.encoder,
        config.probe,
        config.null_probe,
        probe_names(config.probes),
        device=processes.device,
        dtype=config.dtype,
    )
    max_tokens = require_lengths(models, config.lengths)
    corpus = _training_corpus(config, tokenizer)
    identity = _identity(config, models, tokenizer, corpus)
    if _is_finished(config.out, identity):
        logger.info("%s is already measured with this configuration", config.out)
        return config.out
    selection = select_chunks(
        config.data,
        config.lengths,
        tokenizer,
        max_chunks=config.max_chunks,
        max_tokens=max_tokens,
        # words are of no use to processes that make no tables
        annotator=config.annotate if processes.rank == 0 else "none",
        seed=config.seed,
        overlaps=None if config.overlap is None else read_overlap(config.overlap),
        max_overlap=config.max_overlap,
    )
    work = MeasurementWork(config, models, tokenizer, selection.cells, processes, corpus)
    if processes.rank == 0:
        write_text(config.out / PARTIAL / CONFIG, json.dumps(identity, indent=2))
    work.run_models()
    processes.wait()
    if processes.rank == 0:
        work.write_tables({**identity, "versions": _versions()})
        run = {
            "config": identity,
            "config_hash": config_hash(identity),
            "versions": _versions(),
            "cells": [_summary(cell) for cell in selection.cells],
            "too_short": [{"source": name, "length": n} for name, n in selection.missing],
            "n_overlapping": selection.n_overlapping,
            "n_too_long": selection.n_too_long,
        }
        write_text(config.out / RUN, json.dumps(run, indent=2))
        shutil.rmtree(config.out / PARTIAL)
    return config.out


def _training_corpus(
    config: MeasureConfig, tokenizer: PreTrainedTokenizerFast
) -> CorpusStore | None:
    """Return the open store whose mean states are wanted.

    Raises:
        InputError: a store of another tokenizer, or without a document of a measured length.
    """
    if config.training_corpus is None:
        return None
    store = open_store(config.training_corpus)
    store.require_tokenizer(tokenizer_hash(tokenizer))
    for length in config.lengths:
        if length != WHOLE_TEXT and not store.windows(length, "train").total:
            raise InputError(f"no training document of {store.path} has {length} tokens")
    return store


def _identity(
    config: MeasureConfig,
    models: Models,
    tokenizer: PreTrainedTokenizerFast,
    corpus: CorpusStore | None,
) -> dict[str, Any]:
    """Return all that decides the numbers: configuration, weights, tokenizer and data."""
    probes = {"probe": models.probe, "null_probe": models.null_probe, **models.others}
    sources = [parse_source(source) for source in config.data]
    files = {source.name: Path(source.address) for source in sources if not source.is_hub}
    files |= {"frequencies": config.frequencies} if config.frequencies else {}
    files |= {"overlap": config.overlap} if config.overlap else {}
    return {
        **config.identity(),
        "encoder_fingerprint": models.encoder.fingerprint,
        "probe_fingerprints": {
            name: fingerprint(probe) for name, probe in probes.items() if probe is not None
        },
        "tokenizer_hash": tokenizer_hash(tokenizer),
        "training_corpus": None if corpus is None else corpus.content_hash,
        "file_hashes": {name: _file_hash(path) for name, path in files.items() if path.is_file()},
    }


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _is_finished(out: Path, identity: Mapping[str, Any]) -> bool:
    """Return whether `out` holds this measurement; a started one counts as not finished.

    Raises:
        InputError: it holds another one.
    """
    run, started = out / RUN, out / PARTIAL / CONFIG
    if run.is_file():
        _require_same(out, json.loads(run.read_text(encoding="utf-8"))["config"], identity)
        return True
    if started.is_file():
        _require_same(out, json.loads(started.read_text(encoding="utf-8")), identity)
    return False


def _require_same(out: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    different = sorted(key for key in {*there, *here} if there.get(key) != here.get(key))
    if different:
        name = different[0]
        raise InputError(
            f"{out} holds a measurement with another {', '.join(different)} ({name} is "
            f"{there.get(name)!r} there and {here.get(name)!r} here); choose another folder or "
            "delete it"
        )


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("selmem", "torch", "transformers", "tokenizers")}


def _summary(cell: Cell) -> dict[str, Any]:
    return {
        "source": cell.source,
        "length": cell.length,
        "n_chunks": len(cell.chunks),
        "n_documents": cell.n_documents,
        "has_chance": cell.n_documents > 1,
    }
