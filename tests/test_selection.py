import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import selmem
from selmem import annotation
from selmem.analysis import load_measurement
from selmem.analysis.pairs import pair_table
from selmem.cli import main
from selmem.corpora import read_documents
from selmem.documents import Document
from selmem.encoder import read_state
from selmem.errors import InputError
from selmem.measurement import MeasureConfig, measure, work
from selmem.measurement.cells import Cell
from selmem.measurement.selection import select_chunks
from selmem.overlap import Overlap, find_overlap, write_overlap
from selmem.probe_loading import load_probe
from selmem.resampling import Resampling
from selmem.tables import WHOLE_TEXT, read_table
from selmem.tokenization import load_tokenizer
from small_corpora import chunks_of
from tiny_release import KNOWN_SENTENCES

TEXTS = [" ".join(KNOWN_SENTENCES[i].split()[: 4 + i % 3]) for i in range(6)]
TEXTS += [KNOWN_SENTENCES[6], " ".join(KNOWN_SENTENCES)]
TOO_LONG = str(len(TEXTS))  # over 32 tokens


@pytest.fixture(scope="module")
def tokenizer(release):
    return load_tokenizer(release.probe)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(TEXTS))
    return f"{path}#lines"


@pytest.fixture(scope="module")
def config(release, source, tmp_path_factory):
    return MeasureConfig(
        encoder=str(release.encoder),
        probe=str(release.probe),
        null_probe=str(release.null_probe),
        data=(source,),
        lengths=(4, WHOLE_TEXT),
        out=tmp_path_factory.mktemp("measured") / "out",
        batch_tokens=64,
        device="cpu",
        annotate="none",
        controls=True,
    )


@pytest.fixture(scope="module")
def measured(config):
    out = measure(config)
    return {
        name: read_table(out / f"{name}.parquet").to_pandas()
        for name in ("chunks", "reconstructions", "tokens", "words")
    }


def whole(table):
    return table[table.chunk_id.str.endswith("/whole/0")]


def select(source, tokenizer, **changes):
    values = {"lengths": (WHOLE_TEXT,), "max_chunks": 100, "max_tokens": 32, "seed": 0, **changes}
    return select_chunks((source,), values.pop("lengths"), tokenizer, annotator="none", **values)


def test_two_documents_of_one_id_are_refused(tmp_path, tokenizer):
    (tmp_path / "twice.jsonl").write_text(
        '{"id": "a", "text": "one"}\n{"id": "a", "text": "two"}\n'
    )
    with pytest.raises(InputError, match="two documents of twice have the id 'a'"):
        select(str(tmp_path / "twice.jsonl"), tokenizer)


def test_a_whole_text_is_one_chunk_of_its_own_length(measured, tokenizer):
    chunks = whole(measured["chunks"]).set_index("doc_id")
    sizes = {str(i): len(tokenizer(text)["input_ids"]) for i, text in enumerate(TEXTS, 1)}
    assert chunks["length"].to_dict() == {name: n for name, n in sizes.items() if n <= 32}
    assert TOO_LONG not in chunks.index
    assert chunks["length"].nunique() > 2
    assert chunks.loc["3", "text"] == TEXTS[2]
    assert chunks.loc["3", "chunk_id"] == "texts/3/whole/0"
    assert not whole(measured["words"])["cut"].any()


def test_bits_of_a_whole_text_are_those_of_plain_forward_passes(measured, release):
    encoder, probe = selmem.load_encoder(release.encoder), load_probe(release.probe)
    tokens = measured["tokens"].set_index(["chunk_id", "position"])
    texts = measured["reconstructions"].set_index("chunk_id")
    for chunk in whole(measured["chunks"]).itertuples():
        ids = torch.tensor(chunk.token_ids, dtype=torch.int64)[None]
        inputs, labels = probe.teacher_forcing(ids)
        state = read_state(encoder, ids)
        found = tokens.loc[chunk.chunk_id]
        assert found.token_id.tolist() == ids[0].tolist()
        for model, given, column in (
            (probe, {"state": state}, "probe_bits"),
            (encoder, {}, "base_bits"),
        ):
            logits = model(inputs, **given).logits[0].double()
            bits = -torch.log_softmax(logits, -1)[range(len(labels[0])), labels[0]] / math.log(2)
            np.testing.assert_allclose(found[column], bits[:-1].detach(), atol=1e-4)
            if column == "probe_bits":
                end = texts.eos_bits[chunk.chunk_id]
                assert end == pytest.approx(bits[-1].item(), abs=1e-4)
            else:
                perplexity = texts.encoder_perplexity[chunk.chunk_id]
                assert perplexity == pytest.approx(2 ** bits[:-1].mean().item(), rel=1e-4)
        written = probe.reconstruct(state, len(ids[0]) + 16)[0].tolist()
        assert texts.token_ids[chunk.chunk_id].tolist() == [*written, 0][: [*written, 0].index(0)]


def test_reconstructions_that_do_not_end_are_cut_sixteen_tokens_behind_each_text(
    config, tmp_path, monkeypatch
):
    score_batch = work.score_batch

    def endless(models, token_ids, **arguments):
        arrays = score_batch(models, token_ids, **arguments)
        shape = (len(token_ids), token_ids.shape[1] + 16)
        return {**arrays, "reconstruction": np.full(shape, 7, np.int32)}

    monkeypatch.setattr(work, "score_batch", endless)
    out = measure(replace(config, lengths=(WHOLE_TEXT,), controls=False, out=tmp_path / "o"))
    table = read_table(out / "reconstructions.parquet").to_pandas()
    assert table["length"].nunique() > 2
    assert (table["token_ids"].str.len() == table["length"] + 16).all()


def test_controls_are_for_chunks_of_one_length(measured):
    tokens = measured["tokens"]
    assert whole(tokens)["probe_bits_other_state"].isna().all()
    assert tokens.drop(whole(tokens).index)["probe_bits_other_state"].notna().all()


def test_only_text_about_a_chunk_is_tagged_and_its_words_are_those_of_the_whole(
    tokenizer, tmp_path, monkeypatch
):
    pytest.importorskip("spacy")
    monkeypatch.setattr("selmem.annotation._MAX_PIECE", 200)
    read = []
    pieces = annotation._pieces

    def counted(text, spans=None):
        found = list(pieces(text, spans))
        read.append(sum(len(piece) for _, piece in found))
        return found

    monkeypatch.setattr("selmem.annotation._pieces", counted)
    text = "Angela Merkel flew to Rome in 2019 and bought two red apples there. " * 60
    (tmp_path / "long.txt").write_text(text)
    given = ((str(tmp_path / "long.txt"),), (8, 16), tokenizer)
    found = select_chunks(*given, max_chunks=2, max_tokens=32, annotator="spacy", seed=0)
    assert 0 < read[0] < len(text) / 2
    [document] = annotation.annotate([Document(doc_id="long", source="long", text=text)])
    for cell in found.cells:
        whole = {
            chunk.chunk_id.split("/")[-1]: chunk.words
            for chunk in chunks_of(document, tokenizer, cell.length)
        }
        assert len(cell.chunks) == 2
        for chunk in cell.chunks:
            assert chunk.words == whole[chunk.chunk_id.split("/")[-1]] != ()


def test_texts_too_long_to_be_measured_whole_are_counted(config, measured):
    run = json.loads((config.out / "run.json").read_text())
    assert run["n_too_long"] == {"texts": 1}
    assert run["cells"][1]["length"] == 0
    assert run["cells"][1]["n_chunks"] == len(whole(measured["chunks"])) == len(TEXTS) - 1


def test_whole_texts_of_two_varieties_are_paired_by_line(config, tmp_path):
    for name in ("aave", "sae"):
        lines = [" ".join(KNOWN_SENTENCES[i % 8].split()[: 5 + i // 8]) for i in range(16)]
        if name == "aave":
            lines = [line + "." * (i % 2) for i, line in enumerate(lines)]
            lines[3] += " and more"
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    data = tuple(f"{name}={tmp_path}/{name}.txt#lines" for name in ("aave", "sae"))
    lengths = (WHOLE_TEXT,)
    out = measure(replace(config, data=data, lengths=lengths, controls=False, out=tmp_path / "out"))
    measurement = load_measurement(out)
    assert measurement.lengths == (WHOLE_TEXT,)
    table = pair_table(measurement, Resampling(n_resamples=50)).set_index("outcome")
    assert table.index[0] == "recovered_fraction"
    row = table.loc["recovered_fraction"]
    sizes = measurement.chunks.pivot(index="doc_id", columns="source", values="n_tokens")
    ratio = sizes["aave"] / sizes["sae"]
    assert ratio["4"] > 1.25
    assert row["n_pairs"] == ratio.between(0.8, 1.25).sum() >= 10
    assert row["n_pairs_left_out"] == 16 - row["n_pairs"]
    assert np.isfinite([row["ci_low"], row["ci_high"], row["adjusted_difference"]]).all()


def test_batches_of_whole_texts_hold_every_text_once_and_keep_within_their_size(source, tokenizer):
    [cell] = select(source, tokenizer).cells
    batches = list(cell.batches(64))
    rows = [row for batch in batches for row in range(len(cell.chunks))[batch]]
    assert rows == list(range(len(cell.chunks)))
    assert 1 < len(batches) < len(cell.chunks)
    for batch in batches:
        assert max(cell.n_tokens[batch]) * (batch.stop - batch.start) <= 64
    alone = [batch.stop - batch.start for batch in cell.batches(1)]
    assert alone == [1] * len(cell.chunks)


def test_batches_of_chunks_of_one_length_are_full(source, tokenizer):
    [cell] = select(source, tokenizer, lengths=(4,)).cells
    assert isinstance(cell, Cell)
    sizes = [batch.stop - batch.start for batch in cell.batches(16)]
    assert set(sizes[:-1]) == {4}
    assert sum(sizes) == len(cell.chunks)


def test_documents_of_the_training_corpus_are_left_out(source, tokenizer):
    overlaps = [Overlap(source="texts", doc_id=str(i), n_ngrams=10, n_found=i) for i in range(1, 9)]
    found = select(source, tokenizer, lengths=(4,), overlaps=overlaps, max_overlap=0.3)
    assert found.n_overlapping == {"texts": 5}
    assert {chunk.doc_id for chunk in found.cells[0].chunks} == {"1", "2", "3"}
    with pytest.raises(InputError, match="every document shares over 5% of its n-grams"):
        select(source, tokenizer, lengths=(4,), overlaps=overlaps, max_overlap=0.05)


def test_measurement_leaves_out_what_the_stored_overlap_says(config, source, tmp_path):
    overlaps = find_overlap(read_documents(source), [TEXTS[-1]])
    assert [overlap.share for overlap in overlaps if overlap.share] != []
    write_overlap(overlaps, tmp_path / "overlap.parquet", metadata={})
    config = replace(
        config,
        lengths=(4,),
        controls=False,
        overlap=tmp_path / "overlap.parquet",
        out=tmp_path / "o",
    )
    kept = set(read_table(measure(config) / "chunks.parquet")["doc_id"].to_pylist())
    seen = {o.doc_id for o in overlaps if (o.share or 0) > 0.1}
    assert seen
    assert kept.isdisjoint(seen)
    run = json.loads((tmp_path / "o" / "run.json").read_text())
    assert run["n_overlapping"] == {"texts": len(seen)}
    assert run["config"]["max_overlap"] == 0.1
    assert "overlap" in run["config"]["file_hashes"]
    with pytest.raises(InputError, match="another max_overlap"):
        measure(replace(config, max_overlap=1.0))


def test_text_that_is_too_long_to_be_measured_whole_is_refused(source, tokenizer):
    with pytest.raises(InputError, match="every document is longer than the 3 tokens"):
        select(source, tokenizer, max_tokens=3)


def test_a_share_above_one_is_refused(config):
    with pytest.raises(InputError, match=r"max_overlap is 1\.5, expected a share from 0 to 1"):
        replace(config, max_overlap=1.5)


def test_command_line_measures_whole_texts_without_what_overlaps(config, source, tmp_path, capsys):
    (tmp_path / "corpus.txt").write_text(TEXTS[-1])
    overlap = tmp_path / "overlap.parquet"
    corpus = f"training={tmp_path}/corpus.txt"
    assert main(["overlap", "--data", source, "--corpus", corpus, "--out", str(overlap)]) == 0
    assert capsys.readouterr().out.strip() == str(overlap)
    models = ["--encoder", config.encoder, "--probe", config.probe, "--device", "cpu"]
    limits = ["--overlap", str(overlap), "--max-overlap", "0.2", "--annotate", "none"]
    out = ["--out", str(tmp_path / "out"), "--lengths", "4", "whole"]
    assert main(["measure", *models, "--data", source, *limits, *out]) == 0
    chunks = read_table(tmp_path / "out" / "chunks.parquet").to_pandas()
    assert TOO_LONG not in set(chunks["doc_id"])
    assert set(whole(chunks)["doc_id"]) == set(chunks["doc_id"]) == set("1234567")


@pytest.mark.parametrize("length", ["0", "-4", "4.5", "all"])
def test_command_line_refuses_other_lengths(length, capsys):
    required = ["--encoder", "e", "--probe", "p", "--data", "d", "--out", "o"]
    with pytest.raises(SystemExit, match="2"):
        main(["measure", *required, f"--lengths={length}"])
    assert "neither a number of tokens nor `whole`" in capsys.readouterr().err
