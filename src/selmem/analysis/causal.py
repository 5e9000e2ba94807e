"""Is it the encoder that does not store rare words, or the reader that cannot spell them?

Encoders A and B were trained on corpora that differ in the frequency of paired words alone
(`selmem.word_pairs`), readers A and B likewise, and each reader reads each encoder. A first word is
rare in A, a second in B, so every word is seen rare and frequent to the encoder and to the reader,
in all four ways. Every word weighs the same, so what one corpus, encoder or reader does better as a
whole cancels between the two words of a pair; the rest varies from pair to pair and is what the
intervals rest on.

An interaction (a rare word is helped when encoder and reader agree on it) cannot be told from a
reader that reads the encoder of its own corpus better in general. So that is estimated too, at the
words of no pair, as the effect `match`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from selmem.errors import InputError
from selmem.resampling import Floats, Resampling
from selmem.statistics import Bootstrap, bootstrap
from selmem.tables import read_table
from selmem.word_pairs import WordPair

# (encoder, reader), 1 where the word is rare; the order of ratios in all sums
STATES = ((0, 0), (1, 0), (0, 1), (1, 1))
EFFECTS: Mapping[str, tuple[float, float, float, float]] = {
    "encoder": (-0.5, 0.5, -0.5, 0.5),
    "reader": (-0.5, -0.5, 0.5, 0.5),
    "interaction": (1.0, -1.0, -1.0, 1.0),
}
MATCH = "match"
# numerator and denominator, both summed over occurrences
OUTCOMES: Mapping[str, tuple[str, str]] = {
    "omission_aligned": ("omitted_aligned", "one"),
    "omission_forced": ("omitted_forced", "one"),
    "omission_count": ("omitted_count", "one"),
    "recovered_bits": ("recovered_bits", "one"),
    "null_bits": ("null_bits", "one"),
    "recovered_fraction": ("recovered_bits", "null_bits"),
}
_COLUMNS = ("chunk_id", "word_index", "word", "cut", "n_tokens", "omitted_aligned",
            "omitted_forced", "omitted_count", "recovered_bits", "null_bits")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The measurement of one encoder by one reader, a probe and its null probe.

    Attributes:
        encoder: "A" or "B", the corpus that it was trained on.
        reader: likewise.
        seed: of encoder and reader.
        folder: what `selmem measure` wrote.
    """

    encoder: str
    reader: str
    seed: int
    folder: Path


def causal_table(
    cells: Sequence[Cell], pairs: Sequence[WordPair], resampling: Resampling
) -> pd.DataFrame:
    """Return the effects of a word's rarity in the encoder's and in the reader's corpus.

    Rows: length x group of words (all, by number of tokens) x outcome x effect x seed ("all": the
    mean over seeds). `value` is rare minus frequent, per occurrence or as a fraction; `ci_low` and
    `ci_high` resample word pairs, `document_low` and `document_high` documents. The mean outcomes
    stand beside it: `both_frequent`, `encoder_rare`, `reader_rare`, `both_rare`.

    Raises:
        InputError: a combination of encoder and reader is absent for a seed, or two measurements
            are of different text.
    """
    seeds = _require_all(cells)
    words = pd.concat([_read_cell(cell) for cell in cells], ignore_index=True)
    _require_same_text(words, len(cells))
    words = _with_roles(words, pairs)
    rows: list[dict[str, Any]] = []
    for length, of_length in words.groupby("length"):
        for seed in ["all", *(seeds if len(seeds) > 1 else [])]:
            part = of_length if seed == "all" else of_length[of_length["seed"] == seed]
            labels = {"length": int(str(length)), "seed": str(seed)}
            paired = part[part["pair"] >= 0]
            for group, chosen in _groups(paired):
                rows += [{**labels, "group": group, **row} for row in _effects(chosen, resampling)]
            others = part[part["pair"] < 0]
            rows += [{**labels, "group": "other words", **r} for r in _match(others, resampling)]
    return pd.DataFrame(rows)


def _require_all(cells: Sequence[Cell]) -> list[int]:
    """Return the seeds."""
    seeds = sorted({cell.seed for cell in cells})
    found = sorted((cell.seed, cell.encoder, cell.reader) for cell in cells)
    wanted = sorted(product(seeds, "AB", "AB"))
    if found != wanted:
        wrong = sorted({*found} ^ {*wanted}) or found
        raise InputError(
            f"expected one measurement of encoders A and B by readers A and B for every seed; "
            f"(seed, encoder, reader) {wrong[0]} is missing or there twice"
        )
    return seeds


def _read_cell(cell: Cell) -> pd.DataFrame:
    chunks = read_table(cell.folder / "chunks.parquet", columns=("chunk_id", "doc_id", "length"))
    words = read_table(cell.folder / "words.parquet", columns=_COLUMNS)
    frame: pd.DataFrame = words.to_pandas().merge(chunks.to_pandas(), on="chunk_id")
    frame = frame[~frame["cut"]].drop(columns="cut")
    return frame.assign(
        encoder=cell.encoder,
        reader=cell.reader,
        seed=cell.seed,
        one=1.0,
        document=frame["doc_id"].str.rsplit("@", n=1).str[0],
    )


def _require_same_text(words: pd.DataFrame, n_cells: int) -> None:
    counts = words.groupby(["chunk_id", "word_index", "word"], observed=True).size()
    if (counts != n_cells).any():
        chunk = counts.index[int(np.argmax(counts.to_numpy() != n_cells))][0]
        raise InputError(
            f"chunk {chunk} is not in all measurements with the same words; measure all of them "
            "on the same text, lengths and number of chunks"
        )


def _with_roles(words: pd.DataFrame, pairs: Sequence[WordPair]) -> pd.DataFrame:
    """Add `pair` (-1: none), `state` (index into `STATES`) and `n_word_tokens`.

    Pairs of which one word never occurs are left out; other words are clustered by themselves.
    """
    firsts = {pair.first: number for number, pair in enumerate(pairs)}
    seconds = {pair.second: number for number, pair in enumerate(pairs)}
    present = set(words["word"])
    whole = {n for n, pair in enumerate(pairs) if {pair.first, pair.second} <= present}
    number = {word: n for word, n in {**firsts, **seconds}.items() if n in whole}
    rare_in = {word: "A" for word in firsts} | {word: "B" for word in seconds}
    pair = words["word"].map(number).fillna(-1).astype(int)
    rare = words["word"].map(rare_in)
    state = (words["encoder"] == rare).astype(int) + 2 * (words["reader"] == rare).astype(int)
    sizes = np.array([pair.n_tokens for pair in pairs])
    size = np.where(pair >= 0, sizes[pair], 0)
    known = words["word"].isin(rare_in) & (pair < 0)
    return words.assign(pair=pair, state=state, n_word_tokens=size)[~known]


def _groups(paired: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    yield "all", paired
    sizes = sorted(paired["n_word_tokens"].unique())
    for size in sizes if len(sizes) > 1 else []:
        plural = "" if size == 1 else "s"
        yield f"{size} token{plural}", paired[paired["n_word_tokens"] == size]


def _effects(words: pd.DataFrame, resampling: Resampling) -> Iterator[dict[str, Any]]:
    if not len(words):
        return
    sums = {key: _sums(words, words[key]) for key in ("pair", "document")}
    for effect, signs in EFFECTS.items():
        by_pair, by_document = (
            bootstrap(*sums[key], resampling, coefficients=signs) for key in ("pair", "document")
        )
        low, high = by_document.interval()
        means = sums["pair"][0].sum(axis=0) / sums["pair"][1].sum(axis=0)
        for i, row in enumerate(_rows(effect, by_pair)):
            names = ("both_frequent", "encoder_rare", "reader_rare", "both_rare")
            yield {
                **row,
                "document_low": low[i],
                "document_high": high[i],
                **dict(zip(names, means[i], strict=True)),
                "n_pairs": words["pair"].nunique(),
                "n_occurrences": len(words) // _n_cells(words),
            }


def _match(words: pd.DataFrame, resampling: Resampling) -> Iterator[dict[str, Any]]:
    """Yield what the interaction would be at words of the same frequency in both corpora."""
    if not len(words):
        return
    state = (words["encoder"] == "A").astype(int) + 2 * (words["reader"] == "A").astype(int)
    sums = _sums(words.assign(state=state), words["word"])
    found = bootstrap(*sums, resampling, coefficients=EFFECTS["interaction"])
    for row in _rows(MATCH, found):
        yield {**row, "n_occurrences": len(words) // _n_cells(words)}


def _rows(effect: str, result: Bootstrap) -> Iterator[dict[str, Any]]:
    low, high = result.interval()
    p = result.p_value()
    for i, outcome in enumerate(OUTCOMES):
        yield {
            "outcome": outcome,
            "effect": effect,
            "value": result.value[i],
            "ci_low": low[i],
            "ci_high": high[i],
            "p_value": p[i],
        }


def _n_cells(words: pd.DataFrame) -> int:
    return len(words[["encoder", "reader", "seed"]].drop_duplicates())


def _sums(words: pd.DataFrame, clusters: pd.Series) -> tuple[Floats, Floats]:
    """Return numerators and denominators per cluster, outcome and state, (G, C, 4) each.

    An occurrence weighs one over the number of occurrences of its word.
    """
    cluster = pd.factorize(clusters)[0]
    weight = 1 / words.groupby("word")["one"].transform("size").to_numpy(dtype=float)
    cell = cluster * len(STATES) + words["state"].to_numpy()
    shape = (int(cluster.max()) + 1, len(STATES))

    def summed(name: str) -> NDArray[np.float64]:
        values = words[name].to_numpy(dtype=float) * weight
        counted = np.bincount(cell, values, minlength=shape[0] * shape[1])
        return counted.astype(float).reshape(shape)

    tops, bottoms = zip(*OUTCOMES.values(), strict=True)
    return np.stack([summed(n) for n in tops], 1), np.stack([summed(n) for n in bottoms], 1)
