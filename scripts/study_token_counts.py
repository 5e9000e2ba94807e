"""Set the Pile's token counts against those of the corpus: which says more about what is lost?

    python scripts/study_token_counts.py WORK PILE.npy

The encoder 4m-neox and its readers never saw the Pile, but have its tokenizer. Where the Pile's
counts go with what is lost nearly as well as those of the corpus that they were trained on, such a
correlation is no sign of training on the Pile.

Read are WORK/measured/4m-neox, WORK/frequencies-neox.parquet (`selmem count` of the corpus) and
WORK/tokenizer-neox; PILE.npy holds int64[50277], the occurrences of every token id in the Pile.
Written is WORK/comparisons/token_counts/table.parquet: Spearman correlations over token types with
at least two occurrences, all sources together, for each length; of each count with each outcome,
raw (adjusted_for ""), with the other count held fixed, and with the form of the token held fixed
besides; of the two counts with each other once. Positive: more of it where the token is frequent.
Intervals resample documents: they hold the chance of texts, not that of other token types, which
would make them wider. All tokens count, also the last four of a chunk, which the convolution state
holds; special tokens do not stand in the texts. Stage `report` of study.py runs this.

Time: 40 seconds.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
from study_runs import CONTROLLED

from selmem.analysis import load_measurement
from selmem.analysis.correlations import Row, correlations
from selmem.analysis.frequency import N_RESAMPLES, points_of_types
from selmem.analysis.measurements import Measurement
from selmem.errors import InputError
from selmem.frequency import load_frequencies
from selmem.resampling import Resampling
from selmem.tables import write_table
from selmem.tokenization import load_tokenizer, n_token_ids, tokenizer_hash

NEOX = f"{CONTROLLED}-neox"
COUNTS, TOKENIZER, PILE_COUNTS = "frequencies-neox.parquet", "tokenizer-neox", "pile-unigrams.npy"
CORPUS, PILE = "count in the corpus", "count in the Pile"
OTHER = "other count"
OTHERS = {CORPUS: PILE, PILE: CORPUS}
FORM = ["characters", "leading space"]  # of the token
# numerator and denominator of each outcome of a token type
OUTCOMES = {
    "omission_aligned": ("unaligned", "one"),
    "recovered_fraction": ("recovered_bits", "null_bits"),
    "null_bits": ("null_bits", "one"),
    "recovered_bits": ("recovered_bits", "one"),
}


def token_types(work: Path, pile: Path, measured_hash: str | None) -> pd.DataFrame:
    """Return both counts (log10 per million) and the form of every token id of the tokenizer.

    Raises:
        InputError: the measurement or a count is of another tokenizer, or cannot be read.
    """
    tokenizer = load_tokenizer(work / TOKENIZER)
    if measured_hash != (own := tokenizer_hash(tokenizer)):
        raise InputError(
            f"measured/{NEOX} is of tokenizer {str(measured_hash)[:12]}, {TOKENIZER} is {own[:12]}"
        )
    ids = range(n_token_ids(tokenizer))
    types = pd.DataFrame(index=ids)
    for name, path in ((CORPUS, work / COUNTS), (PILE, pile)):
        known = load_frequencies(path, tokenizer)
        types[name] = [known.log10_min_token_frequency([i]) for i in ids]
    texts = pd.Series([tokenizer.decode([i]) for i in ids])
    form = (texts.str.len(), texts.str.startswith(" "))
    return types.assign(**dict(zip(FORM, form, strict=True))).astype(float)


def correlation_table(
    measurement: Measurement, types: pd.DataFrame, resampling: Resampling
) -> pd.DataFrame:
    """Return the correlations of both counts with each outcome, and with each other.

    Args:
        measurement: of the encoder.
        types: as `token_types` returns them.
        resampling: the resamples.
    """
    tokens = measurement.tokens.assign(one=1.0)
    tables = []
    for length, rows in tokens.groupby("length", sort=True):
        found = pd.DataFrame(_of_length(rows, types, resampling), columns=Row._fields)
        tables.append(found.drop_duplicates().assign(length=length))  # raw ones come twice
    return pd.concat(tables, ignore_index=True)


def _of_length(rows: pd.DataFrame, types: pd.DataFrame, resampling: Resampling) -> Iterator[Row]:
    codes, ids = pd.factorize(rows["token_id"])
    own = types.loc[ids]
    rows = rows.assign(**{PILE: own[PILE].to_numpy()[codes]})
    cases = [(CORPUS, {PILE: (PILE, "one")}, [])]
    cases += [(count, OUTCOMES, [OTHER, *form]) for count in OTHERS for form in ([], FORM)]
    for count, outcomes, held in cases:
        known = own.assign(**{OTHER: own[OTHERS[count]]})
        points = points_of_types(
            rows,
            codes,
            level="token type",
            predictor=(count, known[count].to_numpy()),
            outcomes=outcomes,
            covariates={name: known[name].to_numpy() for name in held},
        )
        yield from correlations(points, resampling)


def main() -> None:
    """Read the arguments and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("pile", type=Path, metavar="PILE.npy")
    arguments = parser.parse_args()
    work, folder = arguments.work, arguments.work / "measured" / NEOX
    needed = (folder / "run.json", work / COUNTS, work / TOKENIZER, arguments.pile)
    if missing := [str(path) for path in needed if not path.exists()]:
        raise SystemExit(f"not there: {' and '.join(missing)}")
    measurement = load_measurement(folder)
    types = token_types(work, arguments.pile, measurement.tokenizer_hash)
    table = correlation_table(measurement, types, Resampling(n_resamples=N_RESAMPLES))
    path = work / "comparisons" / "token_counts" / "table.parquet"
    write_table(pa.Table.from_pandas(table, preserve_index=False), path, metadata={})
    print(f"{len(table)} rows in {path}")


if __name__ == "__main__":
    main()
