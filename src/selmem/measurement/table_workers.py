"""The tables of all cells, made by one process or several: the same either way."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import pyarrow as pa
from transformers import PreTrainedTokenizerFast

from selmem.frequency import Frequencies
from selmem.measurement.cell_tables import Naming, cell_tables
from selmem.measurement.cells import Cell
from selmem.measurement.partial_results import PartialResults

Tables = dict[str, pa.Table]


@dataclass(frozen=True, kw_only=True)
class TableMaker:
    """Makes the tables of a cell from the results of its batches.

    Attributes:
        partial: the results.
        batch_tokens: with which they were made.
        tokenizer: see `cell_tables`; likewise naming, frequencies and seed.
    """

    partial: PartialResults
    batch_tokens: int
    tokenizer: PreTrainedTokenizerFast
    naming: Naming
    frequencies: Frequencies | None
    seed: int

    def tables(self, number: int, cell: Cell) -> Tables:
        """Return the tables of cell number `number`."""
        arrays = self.partial.read_cell(number, cell, self.batch_tokens)
        return cell_tables(
            cell,
            arrays,
            self.tokenizer,
            self.naming,
            frequencies=self.frequencies,
            seed=self.seed,
        )


def tables_of_cells(maker: TableMaker, cells: Sequence[Cell], workers: int) -> Iterator[Tables]:
    """Yield the tables of every cell, in order.

    Args:
        maker: of the tables.
        cells: all of the measurement.
        workers: processes that make them; 1 is this one.
    """
    if workers == 1:
        yield from (maker.tables(number, cell) for number, cell in enumerate(cells))
        return
    # a forked copy of a process that uses a GPU is not safe
    with ProcessPoolExecutor(workers, get_context("spawn"), _take, (maker,)) as pool:
        sizes = [cell.n_tokens.sum() for cell in cells]
        longest_first = sorted(range(len(cells)), key=lambda number: -sizes[number])
        jobs = {number: pool.submit(_tables, number, cells[number]) for number in longest_first}
        for number in range(len(cells)):
            yield jobs.pop(number).result()


_maker: TableMaker | None = None  # of a worker


def _take(maker: TableMaker) -> None:
    global _maker
    _maker = maker


def _tables(number: int, cell: Cell) -> Tables:
    assert _maker is not None
    return _maker.tables(number, cell)
