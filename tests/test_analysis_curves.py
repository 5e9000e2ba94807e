from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from selmem.analysis.calibration import calibration_table
from selmem.analysis.controls import control_table
from selmem.analysis.curves import (
    bits_table,
    length_table,
    perplexity_table,
    position_table,
    tokens_in_place,
)
from selmem.resampling import Resampling
from synthetic_tables import CONTROLS, loaded

FEW = Resampling(n_resamples=200, seed=1)


@pytest.fixture(scope="module")
def measurement():
    return loaded(n_documents=20, controls=CONTROLS)


def test_tokens_in_place_are_counted_by_position():
    m = loaded(n_documents=4, lengths=(16,))
    m = replace(
        m,
        reference_ids=pa.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        reconstructed_ids=pa.array([[1, 9, 3, 3], [5, 6], []]),
    )
    assert tokens_in_place(m).tolist() == [2, 0, 0]


def test_an_oracle_has_every_token_in_place(measurement):
    m = replace(measurement, reconstructed_ids=measurement.reference_ids)
    table = length_table(m, FEW)
    assert (table["tokens_in_place"] == 1).all()
    assert (length_table(measurement, FEW)["tokens_in_place"] < 1).all()


def test_length_rows_are_means_over_chunks(measurement):
    row = length_table(measurement, FEW).iloc[0]
    chunks = measurement.chunks[measurement.chunks["length"] == row["length"]]
    assert row["n_chunks"] == len(chunks)
    assert row["rouge1_f1"] == pytest.approx(chunks["rouge1_f1"].mean())
    assert row["exact_match"] == pytest.approx(chunks["exact_match"].mean())


def test_position_curve_shows_the_planted_recency(measurement):
    table = position_table(measurement, FEW)
    absolute = table[(table["length"] == 64) & (table["scale"] == "absolute")]
    assert absolute["position"].tolist() == list(range(64))
    tokens = measurement.tokens[measurement.tokens["length"] == 64]
    at_10 = tokens[tokens["position"] == 10]
    assert absolute.iloc[10]["forced_omission_rate"] == pytest.approx(at_10["forced_wrong"].mean())
    assert absolute.iloc[10]["recovered_fraction"] == pytest.approx(
        at_10["recovered_bits"].sum() / at_10["null_bits"].sum()
    )
    relative = table[(table["length"] == 64) & (table["scale"] == "relative")]
    assert len(relative) == 16
    assert relative["n_tokens"].sum() == len(tokens)
    first, last = relative.iloc[0], relative.iloc[-1]
    assert first["forced_omission_rate_low"] > last["forced_omission_rate_high"]


def test_relative_positions_without_the_last_four_leave_them_out(measurement):
    table = position_table(measurement, FEW)
    early = table[(table["length"] == 16) & (table["scale"] == "relative_without_last_4")]
    assert early["position"].tolist() == list(range(12))


def test_perplexity_bins_hold_every_chunk_and_their_mean_omission(measurement):
    table = perplexity_table(measurement, FEW)
    assert (table.groupby("scale")["n_chunks"].sum() == len(measurement.chunks)).all()
    table = table[table["scale"] == "steps of 5"]
    row = table[table["length"] == 16].nlargest(1, "n_chunks").iloc[0]
    chunks = measurement.chunks[measurement.chunks["length"] == 16]
    start = row["perplexity_from"]
    inside = chunks[chunks["encoder_perplexity"].between(start, start + 5, inclusive="left")]
    words = measurement.words[~measurement.words["cut"]]
    words = words[words["chunk"].isin(inside.index)]
    assert row["omission_aligned"] == pytest.approx(words["omitted_aligned"].mean())


def test_a_null_probe_worse_than_the_encoder_is_flagged(measurement):
    assert not bits_table(measurement, FEW)["null_undertrained"].any()
    tokens = measurement.tokens.assign(null_bits=measurement.tokens["null_bits"] + 1)
    assert bits_table(replace(measurement, tokens=tokens), FEW)["null_undertrained"].all()


def test_bits_ignore_tokens_that_the_encoder_has_no_bits_for(measurement):
    tokens = measurement.tokens.copy()
    tokens.loc[tokens["position"] == 0, "base_bits"] = np.nan
    row = bits_table(replace(measurement, tokens=tokens), FEW).iloc[0]
    part = tokens[(tokens["length"] == row["length"]) & tokens["base_bits"].notna()]
    assert row["base_bits"] == pytest.approx(part["base_bits"].mean())
    assert row["null_minus_base"] == pytest.approx((part["null_bits"] - part["base_bits"]).mean())


def test_calibration_error_is_small_for_a_calibrated_probe_and_known_for_a_boaster(measurement):
    table = calibration_table(measurement, FEW)
    assert table["n_tokens"].sum() == len(measurement.tokens)
    assert table["calibration_error"].max() < 0.05
    sure = measurement.tokens.assign(forced_confidence=1.0)
    boasting = calibration_table(replace(measurement, tokens=sure), FEW)
    wrong = sure.groupby("length")["forced_wrong"].mean()
    assert boasting.set_index("length")["calibration_error"].to_dict() == pytest.approx(
        wrong.to_dict()
    )


def test_no_confidence_gives_an_empty_calibration_table(measurement):
    unknown = measurement.tokens.assign(forced_confidence=np.nan)
    assert len(calibration_table(replace(measurement, tokens=unknown), FEW)) == 0


def test_controls_stand_beside_oracle_probe_null_and_encoder(measurement):
    table = control_table(measurement, FEW)
    part = table[table["length"] == 16].set_index("condition")
    assert part.loc["oracle", "bits"] == 0
    assert part.loc["oracle", "recovered_fraction"] == 1
    assert part.loc["null", "recovered_fraction"] == 0
    tokens = measurement.tokens[measurement.tokens["length"] == 16]
    row = part.loc["conv_only"]
    assert row["bits"] == pytest.approx(tokens["probe_bits_conv_only"].mean())
    extra = (tokens["probe_bits_conv_only"] - tokens["probe_bits"]).mean()
    assert row["bits_more_than_probe"] == pytest.approx(extra)
    assert row["bits_more_than_probe_low"] < extra < row["bits_more_than_probe_high"]
    assert part["layer"].to_dict()["layer_1_other"] == 1
    assert row["layer"] == -1


def test_a_control_of_one_source_has_no_row_over_all_sources():
    m = loaded(n_documents=12, controls=CONTROLS, sources=("news", "maths"))
    of_news = (m.tokens["source"] == "news").to_numpy()
    partly = m.tokens.assign(probe_bits_conv_only=m.tokens["probe_bits_conv_only"].where(of_news))
    table = control_table(replace(m, tokens=partly), FEW)
    by_condition = table.groupby("condition")["source"].agg(set)
    assert by_condition["probe"] == {"news", "maths", "all sources"}
    assert by_condition["conv_only"] == {"news"}


def test_without_a_null_probe_bits_and_controls_still_stand():
    m = loaded(n_documents=12, null_probe=False)
    assert bits_table(m, FEW)["recovered_fraction"].isna().all()
    assert not bits_table(m, FEW)["null_undertrained"].any()
    assert "null" not in set(control_table(m, FEW)["condition"])
