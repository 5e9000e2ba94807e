"""The batches of a measurement: shared between processes, kept on disk, joined into tables."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from selmem.corpus_store import CorpusStore
from selmem.frequency import load_frequencies
from selmem.measurement.cell_tables import Naming
from selmem.measurement.cells import Cell
from selmem.measurement.config import MeasureConfig
from selmem.measurement.models import Processes, model_name
from selmem.measurement.partial_results import PartialResults
from selmem.measurement.scoring import Models, score_batch, sum_states
from selmem.measurement.table_workers import TableMaker, tables_of_cells
from selmem.omission_rate.chance import derangements
from selmem.probe import MambaState
from selmem.tables import WHOLE_TEXT, config_hash, write_table

PARTIAL = ".partial"  # folder of an unfinished measurement, inside its output
TABLES = ("chunks", "reconstructions", "tokens", "words")

Batch = tuple[int, slice]  # number of the cell, and rows in it
Item = TypeVar("Item")


class MeasurementWork:
    """The batches of a measurement and their results.

    Args:
        config: of the measurement.
        models: on this process's device.
        tokenizer: of the probe.
        cells: all chunks, the same in every process.
        processes: that share the batches.
        corpus: whose training documents give the mean states; the chunks if None.
    """

    def __init__(
        self,
        config: MeasureConfig,
        models: Models,
        tokenizer: PreTrainedTokenizerFast,
        cells: Sequence[Cell],
        processes: Processes,
        corpus: CorpusStore | None = None,
    ) -> None:
        self.config, self.models, self.tokenizer = config, models, tokenizer
        self.cells, self.processes, self.corpus = cells, processes, corpus
        key = {"chunks": _digest(cells), "batch_tokens": config.batch_tokens}
        folder = config.out / PARTIAL / config_hash(key)[:16]
        self.partial = PartialResults(folder, pad_id=tokenizer.eos_token_id)
        path = config.frequencies
        self.frequencies = None if path is None else load_frequencies(path, tokenizer)
        self.donors = [
            derangements([chunk.doc_id for chunk in cell.chunks], draws=1, seed=config.seed)
            # a whole text has no donor of its length
            if config.controls and cell.length != WHOLE_TEXT
            else None
            for cell in cells
        ]

    def run_models(self) -> None:
        """Do this process's share of the batches, and keep their results."""
        means = self._mean_states() if self.config.controls else {}
        batches = list(self._share(self._batches()))
        with _progress(batches, "forced bits and reconstructions") as progress:
            for number, rows in batches:
                cell, donors = self.cells[number], self.donors[number]
                if not self.partial.has_batch(number, rows.start):
                    arrays = score_batch(
                        self.models,
                        self._token_ids(cell, rows),
                        n_tokens=torch.from_numpy(cell.n_tokens[rows]),
                        donors=None if donors is None else self._token_ids(cell, donors[0, rows]),
                        means=means.get(cell.length),
                    )
                    self.partial.write_batch(number, rows.start, arrays)
                progress.update(rows.stop - rows.start)

    def write_tables(self, metadata: dict[str, Any]) -> None:
        """Write all tables from the results of all batches."""
        config = self.config
        layers = range(self.models.encoder.config.num_hidden_layers)
        exchanged = ["other_state", "other_conv", "other_ssm"]
        exchanged += [f"{kind}_layer_{layer}" for kind in ("other", "mean") for layer in layers]
        naming = Naming(
            encoder=model_name(config.encoder),
            probe=model_name(config.probe),
            controls=(*self.models.others, *(exchanged if config.controls else ())),
        )
        maker = TableMaker(
            partial=self.partial,
            batch_tokens=config.batch_tokens,
            tokenizer=self.tokenizer,
            naming=naming,
            frequencies=self.frequencies,
            seed=config.seed,
        )
        parts: dict[str, list[pa.Table]] = {name: [] for name in TABLES}
        made = tables_of_cells(maker, self.cells, config.workers)
        total = len(self.cells)
        for tables in tqdm(made, "matching words", total, unit="cell", disable=None):
            for name, table in tables.items():
                parts[name].append(table)
        for name, cells in parts.items():
            path = config.out / f"{name}.parquet"
            write_table(pa.concat_tables(cells), path, metadata=metadata)

    def _mean_states(self) -> dict[int, MambaState]:
        """Return for every length the mean state over training text, or over all its chunks."""
        rank, world = self.processes.rank, self.processes.world
        lengths = list(dict.fromkeys(cell.length for cell in self.cells))
        lengths = [length for length in lengths if length != WHOLE_TEXT]
        for length in lengths:
            if not self.partial.has_sum(length, f"{rank}of{world}"):
                total, n_chunks = self._sum_states(length)
                self.partial.write_sum(length, f"{rank}of{world}", total, n_chunks)
        self.processes.wait()
        means = {length: self.partial.read_mean(length, world) for length in lengths}
        return {length: mean.to(self.models.device) for length, mean in means.items()}

    def _sum_states(self, length: int) -> tuple[MambaState, int]:
        shape = self.models.encoder.config
        total, n_chunks = MambaState.zeros(shape, 1, dtype=torch.float64), 0
        texts = list(self._share(self._texts(length)))
        for token_ids in tqdm(texts, f"mean states of {length} tokens", unit="batch", disable=None):
            found = sum_states(self.models, token_ids)
            total = MambaState(total.conv + found.conv, total.ssm + found.ssm)
            n_chunks += len(token_ids)
        return total, n_chunks

    def _texts(self, length: int) -> Iterator[Tensor]:
        """Yield batches of the texts of `length` tokens that the mean state is of, (B, T)."""
        if self.corpus is None:
            for number, rows in self._batches():
                if self.cells[number].length == length:
                    yield self._token_ids(self.cells[number], rows)
            return
        starts = self.corpus.windows(length, "train").spread(self.config.max_chunks)
        size = max(1, self.config.batch_tokens // length)
        for first in range(0, len(starts), size):
            places = starts[first : first + size, None] + np.arange(length)
            yield torch.from_numpy(self.corpus.tokens[places].astype(np.int64))

    def _token_ids(self, cell: Cell, rows: slice | npt.NDArray[np.int64]) -> Tensor:
        """Return the texts of a batch, (B, T), filled up with EOS behind them."""
        indices = range(len(cell.chunks))[rows] if isinstance(rows, slice) else rows.tolist()
        texts = [torch.tensor(cell.chunks[index].token_ids) for index in indices]
        return pad_sequence(texts, True, padding_value=self.tokenizer.eos_token_id)

    def _batches(self) -> Iterator[Batch]:
        for number, cell in enumerate(self.cells):
            for rows in cell.batches(self.config.batch_tokens):
                yield number, rows

    def _share(self, batches: Iterator[Item]) -> Iterator[Item]:
        return islice(batches, self.processes.rank, None, self.processes.world)


def _progress(batches: Sequence[Batch], stage: str) -> "tqdm[Any]":
    n_chunks = sum(rows.stop - rows.start for _, rows in batches)
    return tqdm(total=n_chunks, desc=stage, unit="chunk", disable=None)


def _digest(cells: Sequence[Cell]) -> str:
    digest = sha256()
    for cell in cells:
        for chunk in cell.chunks:
            digest.update(f"{chunk.chunk_id} {chunk.token_ids}\n".encode())
    return digest.hexdigest()
