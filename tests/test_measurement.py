import json
import logging
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MambaConfig

import selmem
from selmem.corpus_building import build_store
from selmem.encoder import MambaEncoder
from selmem.errors import InputError
from selmem.measurement import MeasureConfig, measure, work
from selmem.omission_rate import inputs as metric_inputs
from selmem.omission_rate.omission_rate import OmissionRate
from selmem.probe_loading import load_probe
from selmem.tables import read_metadata, read_table
from selmem.tokenization import load_tokenizer
from small_tokenizers import byte_level
from tiny_release import KNOWN_SENTENCES, edit_json

TABLES = ("chunks", "reconstructions", "tokens", "words")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Ten documents of two to four known sentences, words tagged by length."""
    path = tmp_path_factory.mktemp("corpus") / "sentences.jsonl"
    lines = []
    for number in range(10):
        sentences = [KNOWN_SENTENCES[(number + i) % 8] for i in range(2 + number % 3)]
        words = " ".join(sentences).split(" ")
        tags = ["NNS" if len(word) > 4 else "DT" for word in words]
        lines.append({"id": f"d{number}", "tokens": words, "pos_tags": tags})
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture(scope="module")
def config(release, corpus, tmp_path_factory):
    return MeasureConfig(
        encoder=str(release.encoder),
        probe=str(release.probe),
        null_probe=str(release.null_probe),
        data=(str(corpus),),
        lengths=(4, 16),
        out=tmp_path_factory.mktemp("measured") / "out",
        batch_tokens=64,
        device="cpu",
    )


@pytest.fixture(scope="module")
def store(release, corpus, tmp_path_factory):
    """Tokenised text to train on: the same documents, without the held-out ones."""
    folder = tmp_path_factory.mktemp("store") / "store"
    return build_store([str(corpus)], load_tokenizer(release.encoder), folder, held_out=0.1)


@pytest.fixture(scope="module")
def measured(config):
    return tables_of(measure(config))


@pytest.fixture(scope="module")
def controlled_config(config, release):
    return replace(
        config,
        out=config.out.parent / "controlled",
        controls=True,
        probes=(f"same={release.probe}", str(release.null_probe)),
    )


@pytest.fixture(scope="module")
def controlled(controlled_config):
    return tables_of(measure(controlled_config))


def tables_of(folder):
    return {name: read_table(folder / f"{name}.parquet") for name in TABLES}


def rows(table, **values):
    found = table.to_pylist()
    return [row for row in found if all(row[key] == value for key, value in values.items())]


def forced(model, ids, state):
    """Return bits and best guesses from plain logits, (T + 1,)."""
    inputs, labels = [0, *ids], [*ids, 0]
    kwargs = {} if state is None else {"state": state}
    logits = model(torch.tensor([inputs]), **kwargs).logits[0].double()
    bits = -torch.log2(torch.softmax(logits, -1))[range(len(labels)), labels]
    return bits.detach().numpy(), logits.argmax(-1).tolist()


@pytest.fixture(scope="module")
def models(release):
    return (
        selmem.load_encoder(release.encoder),
        load_probe(release.probe),
        load_probe(release.null_probe),
    )


@pytest.mark.parametrize("length", [4, 16])
def test_bits_are_those_of_plain_forward_passes(measured, models, length):
    encoder, probe, null_probe = models
    for chunk in rows(measured["chunks"], length=length)[::5]:
        ids = chunk["token_ids"]
        tokens = rows(measured["tokens"], chunk_id=chunk["chunk_id"])
        [text] = rows(measured["reconstructions"], chunk_id=chunk["chunk_id"])
        state = selmem.read_state(encoder, torch.tensor([ids]))
        probe_bits, probe_best = forced(probe, ids, state)
        null_bits, null_best = forced(null_probe, ids, None)
        base_bits, _ = forced(encoder, ids, None)
        for name, expected in (("probe", probe_bits), ("null", null_bits), ("base", base_bits)):
            found = [token[f"{name}_bits"] for token in tokens]
            np.testing.assert_allclose(found, expected[:-1], atol=1e-4)
        assert [token["forced_argmax_id"] for token in tokens] == probe_best[:-1]
        assert [token["null_argmax_id"] for token in tokens] == null_best[:-1]
        assert text["eos_bits"] == pytest.approx(probe_bits[-1], abs=1e-4)
        assert text["encoder_perplexity"] == pytest.approx(2 ** base_bits[:-1].mean(), rel=1e-4)
        written = probe.reconstruct(state, length + 16)[0].tolist()
        assert text["token_ids"] == [*written, 0][: [*written, 0].index(0)]
        assert text["exact_match"] == (text["token_ids"] == ids)


def test_confidence_is_the_probability_of_the_best_guess(measured):
    for token in rows(measured["tokens"])[:200]:
        right = token["forced_argmax_id"] == token["token_id"]
        bits = -np.log2(token["forced_confidence"])
        assert bits == pytest.approx(token["probe_bits"], abs=1e-4) or not right
        assert bits <= token["probe_bits"] + 1e-4


def test_recovered_bits_add_up(measured):
    tokens, words = (measured[name].to_pandas() for name in ("tokens", "words"))
    texts = measured["reconstructions"].to_pandas().set_index("chunk_id")
    np.testing.assert_allclose(
        tokens.null_bits - tokens.probe_bits, tokens.recovered_bits, atol=1e-4
    )
    by_chunk = tokens.groupby("chunk_id")[["null_bits", "recovered_bits"]].sum()
    for name in by_chunk:
        np.testing.assert_allclose(by_chunk[name], texts[name].loc[by_chunk.index], atol=1e-3)
    whole = tokens[tokens.word_index >= 0].groupby(["chunk_id", "word_index"])
    sums = whole.agg({"recovered_bits": "sum", "position": ["min", "count"]})
    alone = words.set_index(["chunk_id", "word_index"]).loc[sums.index]
    assert (alone.token_start == sums["position", "min"]).all()
    assert (alone.n_tokens == sums["position", "count"]).all()
    np.testing.assert_allclose(alone.recovered_bits, sums["recovered_bits", "sum"], atol=1e-3)


def test_trained_probe_recovers_what_a_null_probe_cannot(measured):
    texts = measured["reconstructions"].to_pandas()
    short = texts[texts.length == 4]
    words = measured["words"].to_pandas()
    assert words.omitted_forced.mean() < 1
    assert short.recovered_bits.sum() / short.null_bits.sum() > -1
    assert set(words.pos) == {"NOUN", "DET"}
    assert words.cut.any()
    assert not words.cut.all()


def test_tables_name_models_and_configuration_but_no_place(config, measured):
    for name in TABLES:
        metadata = read_metadata(config.out / f"{name}.parquet")
        assert metadata["encoder"] == "mamba-tiny"
        assert metadata["data"] == ["sentences=sentences.jsonl"]
        assert metadata["lengths"] == [4, 16]
        assert len(metadata["config_hash"]) == 64
        assert str(config.out.parent) not in json.dumps(metadata)
    assert set(measured["reconstructions"]["probe"].to_pylist()) == {"mamba-tiny-probe"}
    run = json.loads((config.out / "run.json").read_text())
    assert [(cell["source"], cell["length"]) for cell in run["cells"]] == [
        ("sentences", 4),
        ("sentences", 16),
    ]
    assert not list(config.out.glob(".*"))


@pytest.mark.parametrize("length", [4, 16])
def test_metric_gives_the_numbers_of_the_words_table(measured, length):
    chunks = rows(measured["chunks"], length=length)
    ids = {chunk["chunk_id"] for chunk in chunks}
    texts = [row for row in rows(measured["reconstructions"]) if row["chunk_id"] in ids]
    words = measured["words"].filter(pa.compute.is_in(measured["words"]["chunk_id"], pa.array(ids)))
    arguments = metric_inputs.read_tables(chunks, texts, words.to_pylist(), tag="pos")
    results = OmissionRate().compute(**arguments)
    table = words.to_pandas()
    for row, group in [
        (results, table[~table.cut]),
        (results["cut"], table[table.cut]),
        *((results["by_tag"][tag], part) for tag, part in table[~table.cut].groupby("pos")),
    ]:
        assert row["n_words"] == len(group)
        assert row["omission_rate"] == group.omitted_count.astype(float).mean()
        assert row["omission_rate_aligned"] == group.omitted_aligned.mean()
        assert row["chance_rate"] == group.chance_count.astype(float).mean()
        assert row["chance_rate_aligned"] == group.chance_aligned.astype(float).mean()


def test_further_probes_are_columns(controlled):
    tokens = controlled["tokens"].to_pandas()
    np.testing.assert_array_equal(tokens.probe_bits_same, tokens.probe_bits)
    np.testing.assert_array_equal(tokens.probe_bits_mamba_tiny_null_probe, tokens.null_bits)


def test_controls_exchange_parts_of_the_state(controlled, models):
    encoder, probe, _ = models
    chunks = rows(controlled["chunks"], length=16)
    donors = selmem.omission_rate.chance.derangements(
        [chunk["doc_id"] for chunk in chunks], draws=1, seed=0
    )[0]
    states = [selmem.read_state(encoder, torch.tensor([chunk["token_ids"]])) for chunk in chunks]
    mean = [
        torch.stack(part).mean(0) for part in zip(*[(s.conv, s.ssm) for s in states], strict=True)
    ]
    for index in (0, 3):
        own, other = states[index], states[donors[index]]
        first = other.conv[:1], other.ssm[:1]
        expected = {
            "other_state": (other.conv, other.ssm),
            "other_conv": (other.conv, own.ssm),
            "other_ssm": (own.conv, other.ssm),
            "other_layer_0": (
                torch.cat([first[0], own.conv[1:]]),
                torch.cat([first[1], own.ssm[1:]]),
            ),
            "mean_layer_1": (
                torch.cat([own.conv[:1], mean[0][1:]]),
                torch.cat([own.ssm[:1], mean[1][1:]]),
            ),
        }
        tokens = rows(controlled["tokens"], chunk_id=chunks[index]["chunk_id"])
        for name, (conv, ssm) in expected.items():
            bits, _ = forced(probe, chunks[index]["token_ids"], replace(own, conv=conv, ssm=ssm))
            found = [token[f"probe_bits_{name}"] for token in tokens]
            np.testing.assert_allclose(found, bits[:-1], atol=1e-3)


def test_mean_states_are_those_of_the_training_corpus(controlled_config, models, store, tmp_path):
    encoder, probe, _ = models
    config = replace(
        controlled_config, training_corpus=store.path, lengths=(16,), out=tmp_path / "out"
    )
    found = tables_of(measure(config))
    starts = store.windows(16, "train").spread(config.max_chunks)
    texts = [torch.from_numpy(store.tokens[start : start + 16].astype(int)) for start in starts]
    mean = selmem.read_state(encoder, torch.stack(texts)).map(lambda part: part.mean(1, True))
    chunk = rows(found["chunks"])[5]
    own = selmem.read_state(encoder, torch.tensor([chunk["token_ids"]]))
    conv, ssm = torch.cat([mean.conv[:1], own.conv[1:]]), torch.cat([mean.ssm[:1], own.ssm[1:]])
    bits, _ = forced(probe, chunk["token_ids"], replace(own, conv=conv, ssm=ssm))
    tokens = rows(found["tokens"], chunk_id=chunk["chunk_id"])
    np.testing.assert_allclose(
        [token["probe_bits_mean_layer_0"] for token in tokens], bits[:-1], atol=1e-3
    )


def test_training_corpora_that_cannot_serve_are_refused(
    controlled_config, release, corpus, tmp_path
):
    config = replace(controlled_config, out=tmp_path / "out")
    short = tmp_path / "short.jsonl"
    short.write_text('{"text": "a cat"}\n{"text": "a dog"}\n')
    short = build_store([str(short)], load_tokenizer(release.encoder), tmp_path / "short").path
    other = build_store([str(corpus)], byte_level(), tmp_path / "other").path
    for path, message in (
        (short, f"no training document of {short} has 4 tokens"),
        (other, f"{other} was made with a tokenizer of hash"),
        (tmp_path, f"{tmp_path} is no whole corpus store"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            measure(replace(config, training_corpus=path))
    with pytest.raises(InputError, match="add controls"):
        replace(config, training_corpus=tmp_path, controls=False)


def test_interrupted_run_continues_and_ends_alike(config, measured, monkeypatch):
    config = replace(config, out=config.out.parent / "interrupted")
    scored = []

    def stop_after_three(*args, **kwargs):
        scored.append(1)
        if len(scored) == 4:
            raise KeyboardInterrupt
        return score_batch(*args, **kwargs)

    score_batch = work.score_batch
    monkeypatch.setattr(work, "score_batch", stop_after_three)
    with pytest.raises(KeyboardInterrupt):
        measure(config)
    assert not list(config.out.glob("*.parquet"))
    with pytest.raises(InputError, match="another seed"):
        measure(replace(config, seed=1))
    measure(config)
    chunks = measured["chunks"].to_pandas().groupby("length").size()
    n_batches = sum(-(-n // (64 // length)) for length, n in chunks.items())
    assert len(scored) == 4 + n_batches - 3
    assert all(tables_of(config.out)[name].equals(measured[name]) for name in TABLES)


@pytest.mark.usefixtures("measured")
def test_finished_run_is_left_alone(config, caplog, monkeypatch):
    monkeypatch.setattr(work, "score_batch", None)
    before = {path.name: path.stat().st_mtime_ns for path in config.out.iterdir()}
    with caplog.at_level(logging.INFO):
        assert measure(config) == config.out
    assert "already measured" in caplog.text
    assert before == {path.name: path.stat().st_mtime_ns for path in config.out.iterdir()}


@pytest.mark.usefixtures("measured")
def test_other_configuration_in_the_same_folder_says_what_differs(config):
    message = r"another lengths \(lengths is \[4, 16\] there and \[4\] here\)"
    with pytest.raises(InputError, match=message):
        measure(replace(config, lengths=(4,)))
    with pytest.raises(InputError, match="another seed"):
        measure(replace(config, seed=1))


@pytest.mark.usefixtures("measured")
def test_changed_data_in_the_same_folder_is_an_error(config, corpus, tmp_path):
    changed = tmp_path / "sentences.jsonl"
    changed.write_text(corpus.read_text().replace("bridge", "tunnel"))
    with pytest.raises(InputError, match="another file_hashes"):
        measure(replace(config, data=(str(changed),)))


def test_sources_too_short_for_a_length_are_listed(config, tmp_path, caplog):
    short = tmp_path / "short.txt"
    short.write_text("A small dog. The lake.")
    config = replace(
        config,
        data=(*config.data, str(short)),
        lengths=(4, 32),
        out=tmp_path / "out",
        annotate="none",
    )
    measure(config)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["too_short"] == [
        {"source": "short", "length": 32}
    ]
    assert "short: no document has 32 tokens" in caplog.text
    assert "short, 4 tokens: all chunks are of one document" in caplog.text
    words = read_table(tmp_path / "out" / "words.parquet").to_pandas()
    single = words[words.chunk_id.str.startswith("short/")]
    assert single.chance_count.isna().all()
    assert single.pos.isna().all()
    assert len(single)


def test_sample_is_capped(config, tmp_path):
    out = measure(replace(config, max_chunks=5, out=tmp_path / "out"))
    chunks = tables_of(out)["chunks"].to_pandas()
    assert chunks.groupby("length").size().tolist() == [5, 5]


def test_frequencies_fill_their_columns(config, release, tmp_path):
    size = len(load_tokenizer(release.probe))
    np.save(tmp_path / "counts.npy", np.arange(1, size + 1))
    out = measure(
        replace(config, lengths=(16,), frequencies=tmp_path / "counts.npy", out=tmp_path / "out")
    )
    tables = tables_of(out)
    word = rows(tables["words"])[3]
    [chunk] = rows(tables["chunks"], chunk_id=word["chunk_id"])
    own = chunk["token_ids"][word["token_start"] : word["token_start"] + word["n_tokens"]]
    total = size * (size + 1) / 2
    expected = np.log10((min(own) + 1) / total * 1e6)
    assert word["log10_min_token_frequency"] == pytest.approx(expected, rel=1e-5)
    assert word["log10_word_frequency"] is None


@pytest.mark.slow
def test_two_processes_write_the_same_tables(controlled_config, controlled, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import os\n"
        "from pathlib import Path as PosixPath\n"
        "from selmem.measurement import MeasureConfig, measure, work\n"
        "scored, score_batch = [], work.score_batch\n"
        "work.score_batch = lambda *a, **k: scored.append(1) or score_batch(*a, **k)\n"
        f"measure({replace(controlled_config, out=tmp_path / 'out')!r})\n"
        "place = PosixPath(__file__).with_name('rank' + os.environ['RANK'])\n"
        "place.write_text(str(len(scored)))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*command, str(script)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    batches = [int((tmp_path / f"rank{rank}").read_text()) for rank in range(2)]
    assert min(batches) > 0
    assert abs(batches[0] - batches[1]) <= 1
    found = tables_of(tmp_path / "out")
    # the mean states are sums over processes, so their last bits depend on how many there are
    means = [name for name in found["tokens"].column_names if "mean_layer" in name]
    for name in means:
        np.testing.assert_allclose(found["tokens"][name], controlled["tokens"][name], atol=1e-4)
    for name in TABLES:
        kept = [column for column in found[name].column_names if column not in means]
        assert found[name].select(kept).equals(controlled[name].select(kept))


def test_several_workers_write_the_same_files(config, tmp_path):
    measure(config)
    measure(replace(config, out=tmp_path / "out", workers=2))
    for name in TABLES:
        path = f"{name}.parquet"
        assert (tmp_path / "out" / path).read_bytes() == (config.out / path).read_bytes()


def other_encoder(release, folder, **fields):
    torch.manual_seed(1)
    config = MambaConfig(
        **{
            **dict(vocab_size=400, hidden_size=32, num_hidden_layers=2, state_size=8),
            **dict(bos_token_id=0, eos_token_id=0, pad_token_id=0),
            **fields,
        }
    )
    MambaEncoder(config).save_pretrained(folder)
    load_tokenizer(release.encoder).save_pretrained(folder)
    return str(folder)


def copied_probe(source, folder, *, weights=None, tokenizer=None, **changes):
    """Copy a probe's folder with changes of its configuration, weights or tokenizer."""
    (tokenizer or load_tokenizer(source)).save_pretrained(folder)
    (folder / "config.json").write_text((source / "config.json").read_text())
    edit_json(folder / "config.json", **changes)
    tensors = load_file(source / "model.safetensors")
    save_file({**tensors, **(weights or {})}, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


def test_probe_of_another_encoder_is_refused_with_both_names(config, release, tmp_path):
    encoder = other_encoder(release, tmp_path / "stranger")
    with pytest.raises(InputError, match=r"reads states of .*mamba-tiny .* not of .*stranger"):
        measure(replace(config, encoder=encoder, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_null_probe_of_another_encoder_is_refused(config, release, tmp_path):
    changes = {"encoder_fingerprint": "f" * 64, "encoder_name_or_path": "selmem/other"}
    null_probe = copied_probe(release.null_probe, tmp_path / "null", **changes)
    with pytest.raises(InputError, match="null reads states of selmem/other"):
        measure(replace(config, null_probe=null_probe, out=tmp_path / "out"))


def test_probe_of_another_shape_is_refused(config, release, tmp_path):
    probe = copied_probe(release.probe, tmp_path / "unnamed", encoder_fingerprint=None)
    encoder = other_encoder(release, tmp_path / "wide", hidden_size=64)
    with pytest.raises(InputError, match=r"intermediate_size 64, but .*wide has 128"):
        measure(replace(config, encoder=encoder, probe=probe, out=tmp_path / "out"))


def test_probe_in_place_of_null_probe_is_refused(config, release, tmp_path):
    with pytest.raises(InputError, match="is no null probe: it reads 'state'"):
        measure(replace(config, null_probe=str(release.probe), out=tmp_path / "out"))


def test_encoder_in_place_of_probe_is_refused(config, release, tmp_path):
    with pytest.raises(InputError, match="model of type 'mamba'; expected a probe"):
        measure(replace(config, probe=str(release.encoder), out=tmp_path / "out"))


def test_mixed_tokenizers_are_refused(config, release, tmp_path):
    probe = copied_probe(release.probe, tmp_path / "probe", tokenizer=byte_level())
    with pytest.raises(InputError, match="encoder and probe must share one"):
        measure(replace(config, probe=probe, out=tmp_path / "out"))
    null_probe = copied_probe(release.null_probe, tmp_path / "null", tokenizer_hash="0" * 64)
    with pytest.raises(InputError, match="null was trained with tokenizer 000000000000"):
        measure(replace(config, null_probe=null_probe, out=tmp_path / "out"))


def test_damaged_probes_are_refused(config, release, tmp_path):
    weight = {"backbone.norm_f.weight": torch.full((32,), float("nan"))}
    probe = copied_probe(release.probe, tmp_path / "nan", weights=weight)
    with pytest.raises(InputError, match=r"backbone\.norm_f\.weight holds NaN"):
        measure(replace(config, probe=probe, out=tmp_path / "out"))
    probe = copied_probe(release.probe, tmp_path / "cut")
    file = tmp_path / "cut" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(InputError, match="does not load as a probe"):
        measure(replace(config, probe=probe, out=tmp_path / "out"))


def test_length_above_what_the_probe_learned_is_refused(config, tmp_path):
    with pytest.raises(InputError, match="length 64 is above the 32 tokens that mamba-tiny-"):
        measure(replace(config, lengths=(4, 64), out=tmp_path / "out"))


@pytest.mark.parametrize(
    ("text", "message"),
    [("A dog.", "text is shorter than a chunk: .* 32 are needed"), ("  \n", "has no text")],
    ids=["short", "empty"],
)
def test_text_that_makes_no_chunk_is_refused(config, tmp_path, text, message):
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        measure(
            replace(config, data=(str(tmp_path / "a.txt"),), lengths=(32,), out=tmp_path / "out")
        )
    assert not (tmp_path / "out").exists()


def test_sources_of_one_name_are_refused(config, tmp_path):
    with pytest.raises(InputError, match="two sources are named 'sentences'"):
        measure(replace(config, data=config.data * 2, out=tmp_path / "out"))


def test_folder_that_cannot_be_written_is_refused(config, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        measure(replace(config, out=tmp_path / "file" / "out"))


def test_unknown_device_is_refused(config, tmp_path):
    with pytest.raises(InputError, match="device 'cuda:99' is not available"):
        measure(replace(config, device="cuda:99", out=tmp_path / "out"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("lengths", (4, 4), "expected different positive numbers, or 0 for whole texts"),
        ("lengths", (-1,), "expected different positive numbers, or 0 for whole texts"),
        ("lengths", (), "at least one source and one length"),
        ("data", (), "at least one source and one length"),
        ("max_chunks", 0, "max_chunks is 0"),
        ("workers", 0, "workers is 0, expected at least 1"),
        ("annotate", "nltk", "annotate is 'nltk', expected one of spacy, none"),
        ("dtype", "float16", "dtype is 'float16'"),
        ("probes", ("a/x", "b/x"), "two columns would be named probe_bits_x"),
        ("probes", ("other_ssm=a",), "two columns would be named probe_bits_other_ssm"),
    ],
)
def test_configurations_of_no_use_are_refused(config, field, value, message):
    with pytest.raises(InputError, match=message):
        replace(config, **{field: value}).identity()


def test_reduced_precision_changes_little(config, measured, tmp_path):
    out = measure(replace(config, dtype="bfloat16", lengths=(16,), out=tmp_path / "out"))
    reduced = tables_of(out)["tokens"].to_pandas()
    full = measured["tokens"].to_pandas()
    full = full[full.chunk_id.isin(reduced.chunk_id)].reset_index()
    assert np.abs(full.base_bits - reduced.base_bits).mean() < 0.2
