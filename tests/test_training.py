import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from selmem import load_encoder, read_state
from selmem.corpus_building import build_store
from selmem.encoder import fingerprint
from selmem.errors import InputError
from selmem.measurement.models import load_models
from selmem.probe import MambaProbe, MambaProbeConfig
from selmem.runs.config import parse_config
from selmem.tokenization import load_tokenizer, tokenizer_hash
from selmem.training import TrainConfig, train
from small_corpus import small_texts, small_tokenizer, write_corpus

from small_models import small_encoder  # isort: skip

TEXTS = small_texts()


@pytest.fixture(scope="module")
def materials(tmp_path_factory):
    """Return the settings that every run shares: an encoder folder and a corpus."""
    folder = tmp_path_factory.mktemp("materials")
    tokenizer = small_tokenizer(TEXTS)
    encoder = small_encoder(vocab_size=len(tokenizer), eos_token_id=0, pad_token_id=0)
    encoder.save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    return {
        "encoder": str(folder / "encoder"),
        "data": [write_corpus(folder / "corpus.jsonl", TEXTS)],
        "lengths": [4, 8],
        "length_weights": [1.0, 1.0],
        "tokens_per_batch": 64,
        "held_out_tokens": 64,
        "max_steps": 12,
        "eval_every": 4,
        "save_every": 5,
        "log_every": 2,
        "learning_rate": 5e-3,
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def trained(materials, tmp_path_factory):
    """Return the folder of an uninterrupted run."""
    return run(materials, tmp_path_factory.mktemp("trained") / "probe")


def run(materials, out, **changes):
    return train(TrainConfig(**{**materials, "out": str(out), **changes}))


def weights(folder):
    return MambaProbe.from_pretrained(folder, dtype=torch.float32).state_dict()


def curve(folder):
    rows = map(json.loads, (folder / "learning_curve.jsonl").read_text().splitlines())
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def assert_same_weights(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_trained_folder_is_a_probe_of_its_encoder_with_its_tokenizer(trained, materials):
    probe = AutoModel.from_pretrained(trained)
    tokenizer = AutoTokenizer.from_pretrained(trained)
    encoder = load_encoder(materials["encoder"])
    assert probe.config.encoder_fingerprint == encoder.fingerprint
    assert probe.config.tokenizer_hash == tokenizer_hash(tokenizer)
    assert probe.config.max_chunk_tokens == 8
    assert probe.config.training["steps"] == 12
    assert set(probe.config.training["held_out_bits"]) == {"4", "8"}
    assert (tokenizer.padding_side, tokenizer.pad_token) == ("left", tokenizer.eos_token)
    state = read_state(encoder, **tokenizer(["ka lo", "mi"], padding=True, return_tensors="pt"))
    assert probe.reconstruct(state, max_length=8).shape[0] == 2
    assert not (trained / "checkpoints").exists()
    assert [path.name for path in trained.iterdir() if path.name.startswith(".")] == []


def test_training_lowers_the_held_out_bits(trained):
    rows = curve(trained)
    assert [row["step"] for row in rows] == [0, 4, 8, 12]
    assert [row["tokens"] for row in rows] == [0, 256, 512, 768]
    assert rows[-1]["mean_held_out_bits"] < rows[0]["mean_held_out_bits"] - 0.5
    assert rows[-1]["train_loss"] is not None


def test_interrupted_and_resumed_run_ends_with_the_same_weights(trained, materials, tmp_path):
    out = tmp_path / "probe"
    assert run(materials, out, stop_after_steps=5) == out
    assert not (out / "config.json").exists()
    run(materials, out, stop_after_steps=1, resume=True)
    run(materials, out, resume=True)
    assert_same_weights(out, trained)
    ours, theirs = curve(out), curve(trained)
    for row in ours + theirs:
        del row["train_loss"]  # averaged since the last reading, which an interruption moves
    assert ours == theirs


def test_run_killed_between_checkpoints_ends_with_the_same_weights(trained, materials, tmp_path):
    out = tmp_path / "probe"
    run(materials, out, stop_after_steps=10, save_every=4)
    for name in ("checkpoint-10", "checkpoint-8"):
        # a checkpoint that was being written when the process died has no progress file
        if name == "checkpoint-10":
            (out / "checkpoints" / name / "selmem_progress.json").unlink()
    run(materials, out, resume=True)
    assert_same_weights(out, trained)


def test_time_limit_stops_with_a_checkpoint(materials, tmp_path, caplog):
    out = run(materials, tmp_path / "probe", max_minutes=0.0)
    assert (out / "checkpoints" / "checkpoint-1").is_dir()
    assert "stopped at step 1 of 12; run the same command with --resume" in caplog.text


def test_best_held_out_weights_are_the_ones_saved(materials, tmp_path):
    # a learning rate that ruins the probe: the start stays the best
    out = run(materials, tmp_path / "probe", learning_rate=50.0, max_grad_norm=0.0)
    training = json.loads((out / "training.json").read_text())
    assert training["best_step"] == 0
    start = run(materials, tmp_path / "start", max_steps=0)
    assert_same_weights(out, start)


def test_best_weights_survive_a_resume(materials, tmp_path):
    changes = {"learning_rate": 50.0, "max_grad_norm": 0.0}
    out = tmp_path / "probe"
    run(materials, out, stop_after_steps=5, **changes)
    run(materials, out, resume=True, **changes)
    assert json.loads((out / "training.json").read_text())["best_step"] == 0


def test_zero_steps_save_the_encoder_as_the_probe(materials, tmp_path):
    out = run(materials, tmp_path / "probe", max_steps=0)
    assert (
        fingerprint(AutoModel.from_pretrained(out))
        == load_encoder(materials["encoder"]).fingerprint
    )


@pytest.mark.parametrize("condition", ["conv", "ssm", "none"])
def test_every_condition_trains_on_the_same_data(materials, tmp_path, condition):
    out = run(materials, tmp_path / "probe", condition=condition, max_steps=2)
    probe = AutoModel.from_pretrained(out)
    assert probe.config.condition == condition
    assert curve(out)[-1]["mean_held_out_bits"] < curve(out)[0]["mean_held_out_bits"]
    if condition == "none":
        assert probe.null_ssm.abs().sum() > 0


@pytest.mark.parametrize("condition", ["state", "none"])
def test_probe_with_extra_layers_starts_as_the_one_without_and_ends_elsewhere(
    materials, tmp_path, condition
):
    flat, deep = (
        run(materials, tmp_path / str(n), condition=condition, extra_layers=n, max_steps=4)
        for n in (0, 2)
    )
    start, end = (
        [curve(folder)[row]["mean_held_out_bits"] for folder in (flat, deep)] for row in (0, -1)
    )
    assert start[0] == start[1]
    assert end[0] != end[1]
    models, _ = load_models(
        materials["encoder"], str(flat), None, {"deep": str(deep)}, device=torch.device("cpu")
    )
    assert models.others["deep"].config.extra_layers == 2


def test_random_encoder_is_saved_and_is_what_the_probe_reads(materials, tmp_path):
    out = run(materials, tmp_path / "probe", random_encoder=True, max_steps=1)
    probe = AutoModel.from_pretrained(out)
    encoder = load_encoder(probe.config.encoder_name_or_path)
    assert Path(probe.config.encoder_name_or_path) == out / "encoder"
    assert probe.config.encoder_fingerprint == encoder.fingerprint
    assert encoder.fingerprint != load_encoder(materials["encoder"]).fingerprint
    assert tokenizer_hash(load_tokenizer(out / "encoder")) == probe.config.tokenizer_hash


def test_wrong_input_leaves_no_random_encoder_behind(materials, tmp_path):
    with pytest.raises(InputError, match="no training document is long enough"):
        run(
            materials,
            tmp_path / "probe",
            random_encoder=True,
            lengths=[99_999],
            length_weights=[1],
            tokens_per_batch=99_999,
        )
    assert not (tmp_path / "probe").exists()


def test_random_probe_starts_elsewhere_and_a_given_probe_is_continued(materials, tmp_path, trained):
    random = run(materials, tmp_path / "random", init="random", max_steps=0)
    start = run(materials, tmp_path / "start", max_steps=0)
    continued = run(materials, tmp_path / "continued", init_probe=str(trained), max_steps=0)
    assert not torch.equal(
        weights(random)["backbone.embeddings.weight"], weights(start)["backbone.embeddings.weight"]
    )
    assert_same_weights(continued, trained)


def test_parts_of_a_batch_add_up_to_the_batch(materials, tmp_path):
    # 80 tokens are 10 windows of 8: three parts of 4, 3 and 3
    whole = run(materials, tmp_path / "whole", tokens_per_batch=80)
    parts = run(materials, tmp_path / "parts", tokens_per_batch=80, accumulation_steps=3)
    for name, value in weights(whole).items():
        torch.testing.assert_close(value, weights(parts)[name], rtol=0, atol=2e-4, msg=name)


@pytest.mark.slow
def test_two_processes_do_the_same_as_one(trained, materials, tmp_path):
    out = tmp_path / "probe"
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**materials, "out": str(out)}))
    script = tmp_path / "launch.py"
    script.write_text(
        "import sys\n"
        "from selmem.runs.config import parse_config\n"
        "from selmem.training import TrainConfig, train\n"
        "train(parse_config(TrainConfig, sys.argv[1:], prog='train'))\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), "--config", str(config)],
            env={
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    for ours, theirs in zip(curve(out), curve(trained), strict=True):
        assert ours["mean_held_out_bits"] == pytest.approx(theirs["mean_held_out_bits"], abs=1e-4)
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-4)
    assert json.loads((out / "training.json").read_text())["world_size"] == 2


def test_a_planted_loss_changes_what_is_read_and_is_recorded(materials, tmp_path):
    store = build_store(materials["data"], load_tokenizer(materials["encoder"]), tmp_path / "store")
    changes = {"data": [str(store.path)], "channel_words": 2, "max_steps": 2}
    seen, hidden = (
        run(materials, tmp_path / str(erasure), channel_erasure=erasure, **changes)
        for erasure in (0.0, 1.0)
    )
    channel = AutoModel.from_pretrained(hidden).config.training["channel"]
    assert (len(channel["words"]), channel["erasure"]) == (2, 1.0)
    assert not torch.equal(
        weights(seen)["backbone.norm_f.weight"], weights(hidden)["backbone.norm_f.weight"]
    )
    with pytest.raises(InputError, match="channel_erasure needs channel_words"):
        run(materials, tmp_path / "x", channel_erasure=0.5)


def test_bfloat16_halves_the_file(trained, materials, tmp_path):
    out = run(materials, tmp_path / "probe", max_steps=0, save_dtype="bfloat16")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (out, trained)]
    assert sizes[0] < 0.6 * sizes[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "no/such/folder/at all"}, "no/such/folder"),
        ({"lengths": [4, 4]}, "different positive numbers"),
        ({"lengths": [4]}, "1 lengths and 2 length_weights"),
        ({"lengths": [4, 5000]}, "holds no window of 5000"),
        ({"lengths": [4, 1000], "tokens_per_batch": 2000}, "no training document is long enough"),
        ({"data": []}, "data is empty"),
        ({"max_steps": -1}, "max_steps is -1, expected at least 0"),
        ({"held_out": 2.0}, "held_out is 2.0, expected a share"),
        ({"resume": True}, "holds no run to resume"),
        ({"extra_layers": -1}, "extra_layers is -1, expected at least 0"),
        ({"accumulation_steps": 9}, "fewer than its 9 parts"),
        ({"init": "random", "init_probe": "x"}, "choose one"),
    ],
)
def test_wrong_settings_are_refused_by_name(materials, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run(materials, tmp_path / "probe", **changes)
    assert not (tmp_path / "probe" / "config.json").exists()


def test_a_folder_in_use_is_not_overwritten(trained, materials, tmp_path):
    with pytest.raises(InputError, match="already holds a trained model"):
        run(materials, trained)
    run(materials, tmp_path / "probe", stop_after_steps=1)
    with pytest.raises(InputError, match="holds an interrupted run; add --resume"):
        run(materials, tmp_path / "probe")
    with pytest.raises(InputError, match="other settings: seed 0, now 7"):
        run(materials, tmp_path / "probe", resume=True, seed=7)


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path):
    file = tmp_path / "train.yaml"
    file.write_text(
        "encoder: e\ndata: [a.txt]\nout: o\nseed: 3\nlengths: [4]\nlength_weights: [1]\n"
    )
    config = parse_config(TrainConfig, ["--config", str(file), "--seed", "5"], prog="train")
    assert (config.encoder, config.data, config.seed) == ("e", ["a.txt"], 5)
    assert (config.lengths, config.max_steps) == ([4], 10_000)
    flags = ["--encoder", "e", "--data", "a.txt", "b.txt", "--out", "o", "--condition", "none"]
    config = parse_config(TrainConfig, [*flags, "--max-minutes", "1.5"], prog="train")
    assert (config.data, config.condition, config.max_minutes) == (["a.txt", "b.txt"], "none", 1.5)


def test_a_settings_file_is_read_whatever_its_name_and_takes_what_flags_take(tmp_path):
    file = tmp_path / "a=b.json"
    values = {"encoder": "e", "data": ["a.txt", "b.txt"], "out": "o", "learning_rate": "1e-4"}
    file.write_text(json.dumps({**values, "resume": True, "max_minutes": None}))
    for flags in ([f"--config={file}"], ["--config", str(file)]):
        config = parse_config(TrainConfig, flags, prog="train")
        assert (config.data, config.learning_rate) == (["a.txt", "b.txt"], 1e-4)
        assert (config.resume, config.max_minutes) == (True, None)


@pytest.mark.parametrize("flags", [["--conf", "train.yaml"], ["--max-step", "3"], ["more.txt"]])
def test_shortened_flags_and_stray_words_are_refused(tmp_path, flags):
    file = tmp_path / "train.json"
    file.write_text(json.dumps({"encoder": "e", "out": "o", "data": ["a.txt"]}))
    with pytest.raises(InputError, match=f"unknown settings: {' '.join(flags)};"):
        parse_config(TrainConfig, ["--config", str(file), *flags], prog="train")


def test_help_names_what_must_be_given_and_no_default_where_there_is_none(capsys):
    with pytest.raises(SystemExit):
        parse_config(TrainConfig, ["--help"], prog="train")
    shown = capsys.readouterr().out
    assert "[--config FILE] --out OUT --data DATA ... --encoder ENCODER [--SETTING" in shown
    assert "(default: 10000)" in shown
    assert "None" not in shown


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("stpes: 3", "sets stpes, which does not exist"),
        ("seed: many", r"--seed: invalid int value: 'many'; see `train --help` and .*train\.yaml"),
        ("lengths: [4, few]", "--lengths: invalid int value: 'few'"),
        ("max_steps: 2.5", "invalid int value: '2.5'"),
        ("condition: all", "--condition: invalid choice: 'all'"),
        ("precision: fp16", "--precision: invalid choice: 'fp16'"),
        ("- 1", "holds a list, expected names and values"),
        ("a: [", "cannot read"),
    ],
)
def test_a_wrong_settings_file_is_refused(tmp_path, content, message):
    file = tmp_path / "train.yaml"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        parse_config(TrainConfig, ["--config", str(file)], prog="train")


def test_every_setting_says_what_it_is():
    for config_class in (TrainConfig,):
        for name, entry in config_class.__dataclass_fields__.items():
            assert entry.metadata.get("help"), name


def test_decay_leaves_out_vectors_and_states():
    from selmem.runs.trainer import WindowTrainer

    probe = MambaProbe(
        MambaProbeConfig(hidden_size=8, num_hidden_layers=1, vocab_size=9, condition="none")
    )
    names = WindowTrainer.get_decay_parameter_names(None, probe)
    left_out = {name for name, _ in probe.named_parameters()} - set(names)
    assert {name.rpartition(".")[2] for name in left_out} >= {"A_log", "D", "null_conv", "null_ssm"}
    assert "backbone.layers.0.mixer.in_proj.weight" in names
    assert not any("norm" in name or name.endswith("bias") for name in names)


def test_tokenizer_of_another_size_is_refused(materials, tmp_path):
    big = small_tokenizer(TEXTS, vocab_size=330)
    big.save_pretrained(tmp_path / "big")
    with pytest.raises(InputError, match="give the encoder's own with --tokenizer"):
        run(materials, tmp_path / "probe", tokenizer=str(tmp_path / "big"))
