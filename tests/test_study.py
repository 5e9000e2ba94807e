"""The study's recipes: every command is valid, and the runner does what its header says."""

import json
import re
import stat
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import yaml
from transformers import MambaConfig

from selmem.cli import build_parser
from selmem.encoder import MambaEncoder
from selmem.pretraining import PretrainConfig
from selmem.runs.config import parse_config
from selmem.training import TrainConfig

SCRIPTS = Path(__file__).parents[1] / "scripts"
sys.path.insert(0, str(SCRIPTS))

import speed  # noqa: E402
import study  # noqa: E402
import study_measures  # noqa: E402
import study_runs  # noqa: E402
from convergence import still_to_gain  # noqa: E402
from dry_encoder import describe  # noqa: E402

TRAININGS = [run for stage in study_runs.STAGES.values() for run in stage()]
SOURCES = ["a=b.txt", "aave=c.txt#lines", "sae=d.txt#lines"]
TEXT = study_measures.Text(SOURCES, 300, 100, Path("nowhere"))
MEASURED = [run for stage in study_measures.MEASUREMENTS.values() for run in stage(TEXT)]
MEASUREMENTS = [run for run in MEASURED if run.command[0] == "measure"]
REPORTS = [run for run in MEASURED if run not in MEASUREMENTS]
COMMANDS = {"pretrain": PretrainConfig, "train": TrainConfig}


@pytest.mark.parametrize("run", TRAININGS, ids=lambda run: run.out)
def test_every_training_has_settings_that_its_command_takes(run):
    command, *words = run.arguments()
    config = parse_config(COMMANDS[command], words, prog="selmem")
    assert config.max_steps == run.values()["max_steps"]
    assert config.out == run.out
    assert config.save_dtype == "bfloat16"


@pytest.mark.parametrize("run", MEASUREMENTS, ids=lambda run: run.out)
def test_every_measurement_is_a_command_on_what_is_trained(run):
    build_parser().parse_args(run.arguments())
    made = {training.out for training in TRAININGS}
    shared = {f"causal/null-{a}-{b}-{s}" for a, b in ("ab", "ba") for s in study_runs.CAUSAL_SEEDS}
    assert set(run.needs) <= made | shared | {"encoder"}


@pytest.mark.parametrize("run", REPORTS, ids=lambda run: run.out)
def test_every_report_is_a_command_on_what_is_measured(run):
    if run.script is None:
        build_parser().parse_args(run.arguments())
    made = {other.mark for other in MEASURED}
    assert set(run.inputs) <= made
    assert run.inputs
    assert run.share < 0.1


def test_dialect_pairs_are_measured_whole_and_by_their_first_tokens():
    found = {run.out: run.arguments() for run in study_measures.measure(TEXT)}
    assert "aave=c.txt#lines" not in found["measured/4m"]
    for name, length in (("pairs", "whole"), ("prefixes", "16")):
        words = " ".join(found[f"measured/4m-{name}"])
        assert f"--data {' '.join(SOURCES[1:])} " in words
        assert f"--lengths {length} --max-chunks 2000" in words
    [size] = [run for run in study_measures.report(TEXT) if run.out == "reports/4m"]
    assert size.command[1:] == ("measured/4m", "measured/4m-pairs", "measured/4m-prefixes")


def test_what_is_known_of_the_text_is_passed_on(tmp_path):
    text = study_measures.Text(SOURCES, 300, 100, tmp_path)
    (tmp_path / "overlap.parquet").touch()
    assert text.known(neox=True) == {"overlap": "overlap.parquet"}
    (tmp_path / "frequencies.parquet").touch()
    found = {run.out: run.settings for run in study_measures.measure(text)}
    assert found["measured/45m-controls"]["frequencies"] == "frequencies.parquet"
    assert "frequencies" not in found["measured/4m-neox"]
    assert {run["max_chunks"] for run in found.values() if run.get("controls")} == {100}
    assert {run["max_chunks"] for run in found.values() if not run.get("controls")} == {300, 2000}


def test_folders_are_different_and_inputs_are_made():
    names = [run.out for run in TRAININGS + MEASURED]
    assert len(set(names)) == len(names)
    for run in TRAININGS:
        assert set(run.needs) <= {"encoder", *names}


@pytest.mark.parametrize(
    ("size", "parameters"), [("1m", 1e6), ("4m", 4e6), ("15m", 15e6), ("45m", 45e6)]
)
def test_encoders_have_the_parameters_that_their_files_state(size, parameters):
    path = SCRIPTS / "configs" / "study" / f"encoder-{size}.yaml"
    given = yaml.safe_load(path.read_text())
    shape = {name: given[name] for name in ("hidden_size", "num_hidden_layers", "state_size")}
    with torch.device("meta"):
        encoder = MambaEncoder(MambaConfig(vocab_size=4096, **shape))
    embeddings = encoder.backbone.embeddings.weight.numel()
    inner = sum(p.numel() for p in encoder.parameters()) - embeddings
    stated = [int(n.replace(",", "")) for n in re.findall(r"\d+(?:,\d+)+", path.read_text())]
    assert stated == [inner, embeddings, 4096]
    assert inner == pytest.approx(parameters, rel=0.08)


def test_a_dedicated_probe_sees_as_many_tokens_of_its_length_as_the_mixed_one():
    mixed = yaml.safe_load((SCRIPTS / "configs" / "study" / "probe.yaml").read_text())
    for run in study_runs.lengths():
        [length] = run.settings["lengths"]
        weights = mixed["length_weights"]
        share = weights[mixed["lengths"].index(length)] / sum(weights)
        assert run.settings["max_steps"] == pytest.approx(share * mixed["max_steps"], abs=1)


def fake_selmem(folder):
    """Return a command that writes what selmem would, in two parts where it is asked to hurry."""
    script = folder / "selmem.py"
    script.write_text(
        "import json, pathlib, sys\n"
        "words = sys.argv[1:]\n"
        "out = pathlib.Path(words[words.index('--out') + 1])\n"
        "(out / 'checkpoints').mkdir(parents=True, exist_ok=True)\n"
        "with open('calls.txt', 'a') as file: file.write(' '.join(words) + '\\n')\n"
        "if 'fail' in words: sys.exit(2)\n"
        "started = out / 'checkpoints' / 'run.json'\n"
        "if '--max-minutes' in words and not started.exists():\n"
        "    started.write_text('{}')\n"
        "else:\n"
        "    (out / 'config.json').write_text(json.dumps({'encoder_fingerprint': str(out)}))\n"
        "    (out / 'run.json').write_text('{}')\n"
    )
    return f"{sys.executable} {script}"


def arguments(work, stages, **changes):
    for store in ("corpus", "causal/corpus-a", "causal/corpus-b"):
        (work / store).mkdir(parents=True, exist_ok=True)
        (work / store / "store.json").write_text("{}")
    given = {
        "stages": stages, "work": work, "sources": [], "only": [], "jobs": 2, "cards": 1,
        "minutes": None, "selmem": fake_selmem(work), "flags": [], "measure_flags": "",
        "report_flags": "--workers 3",
        "max_chunks": 2000,
        "control_chunks": None,
    }  # fmt: skip
    return Namespace(**{**given, **changes})


def calls(work):
    return [line.split() for line in (work / "calls.txt").read_text().splitlines()]


def test_runner_makes_what_is_needed_first_and_nothing_twice(tmp_path):
    args = arguments(tmp_path, ["encoders", "probes"], flags=["--device", "cpu"])
    runs = study.chosen(args)
    assert study.execute(runs, args) == 0
    outs = [words[words.index("--out") + 1] for words in calls(tmp_path)]
    assert sorted(outs) == sorted(run.out for run in runs)
    assert outs.index("encoders/1m") < outs.index("probes/1m")
    assert all(words[-2:] == ["--device", "cpu"] for words in calls(tmp_path))
    assert study.execute(runs, args) == 0
    assert len(calls(tmp_path)) == len(runs)


def test_runner_continues_what_a_time_limit_ended(tmp_path):
    args = arguments(tmp_path, ["encoders"], minutes=9, only=["encoders/4m", "encoders/1m"])
    runs = study.chosen(args)
    assert [run.out for run in runs] == ["encoders/4m", "encoders/1m"]
    assert study.execute(runs, args) == study.UNFINISHED
    assert study.execute(runs, args) == 0
    assert ["--resume" in words for words in calls(tmp_path)] == [False, False, True, True]


def test_runner_starts_nothing_new_in_the_last_half_minute(tmp_path):
    args = arguments(tmp_path, ["encoders"], minutes=0.4)
    assert study.execute(study.chosen(args), args) == study.UNFINISHED
    assert not (tmp_path / "calls.txt").exists()


def test_a_run_waits_for_its_corpus(tmp_path):
    args = arguments(tmp_path, ["encoders"], only=["encoders/1m"])
    (tmp_path / "corpus/store.json").unlink()
    assert study.execute(study.chosen(args), args) == study.UNFINISHED
    assert not (tmp_path / "calls.txt").exists()


def active(*runs):
    return [study.Active(study_runs.encoder(size, size), card, None) for size, card in runs]


def test_a_run_goes_to_the_emptiest_card_with_room_for_it():
    limits = study.Limits(cards=2, jobs=12)
    assert study.free_card([], set(), 1.0, limits) == 0
    assert study.free_card(active(("45m", 0)), set(), 0.2, limits) == 1
    full = active(("45m", 0), ("15m", 1), ("4m", 1), ("4m", 1))
    assert study.free_card(full, set(), 0.1, limits) == 1
    assert study.free_card(full, set(), 0.1, study.Limits(cards=2, jobs=2)) is None


def test_a_card_that_a_large_run_waits_for_takes_no_small_ones():
    reserved = set()
    running = active(("15m", 0), ("4m", 0), ("15m", 1))
    assert study.free_card(running, reserved, 1.0, study.Limits(2, 12)) is None
    assert reserved == {1}
    assert study.free_card(running, reserved, 0.2, study.Limits(2, 12)) == 0
    assert study.free_card(running, reserved, 0.0, study.Limits(2, 12)) == 1


def test_runs_are_shared_out_to_the_cards(tmp_path):
    args = arguments(tmp_path, ["encoders"], cards=3)
    command = Path(args.selmem.split()[1])
    told = "import os\nopen('cards.txt', 'a').write(os.environ['CUDA_VISIBLE_DEVICES'])\n"
    command.write_text(told + command.read_text() + "import time\ntime.sleep(2)\n")
    assert study.execute(study.chosen(args), args) == 0
    assert sorted((tmp_path / "cards.txt").read_text()) == ["0", "1", "2", "2"]


def test_cards_are_the_first_of_those_that_are_visible(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7,2")
    assert study.devices(2) == ["5", "7"]
    with pytest.raises(SystemExit, match=r"--cards 4, but CUDA_VISIBLE_DEVICES=5,7,2 names 3"):
        study.devices(4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert study.devices(2) == ["0", "1"]


def test_a_failure_stops_what_rests_on_it_and_nothing_else(tmp_path):
    args = arguments(tmp_path, ["probes"], flags=["fail"])
    runs = study.chosen(args)
    (tmp_path / "encoders/1m").mkdir(parents=True)
    (tmp_path / "encoders/1m/config.json").write_text("{}")
    assert study.execute(runs, args) == 2
    assert len(calls(tmp_path)) == 2


def test_measurements_get_their_own_flags_and_sources_that_mean_the_same_anywhere(
    tmp_path, monkeypatch
):
    (tmp_path / "text.txt").write_text("text")
    monkeypatch.chdir(tmp_path)
    args = arguments(
        tmp_path, ["measure"], sources=["a=./text.txt#lines"], measure_flags="--seed 3",
        only=["measured/1m"],
    )  # fmt: skip
    for name in ("encoders", "probes", "nulls"):
        (tmp_path / name / "1m").mkdir(parents=True)
        (tmp_path / name / "1m" / "config.json").write_text("{}")
    assert study.execute(study.chosen(args), args) == 0
    [words] = calls(tmp_path)
    assert f"a={tmp_path}/text.txt#lines" in words
    assert words[-2:] == ["--seed", "3"]


def test_reports_and_cards_are_made_of_what_is_measured_so_far(tmp_path):
    args = arguments(
        tmp_path, ["report"], sources=SOURCES, only=["reports/1m", "reports/4m", "reports/4m-deep"]
    )
    for name in ("4m", "4m-pairs", "4m-prefixes", "1m"):
        (tmp_path / "measured" / name).mkdir(parents=True)
        (tmp_path / "measured" / name / "run.json").write_text("{}")
    assert study.execute(study.chosen(args), args) == study.UNFINISHED
    [words] = calls(tmp_path)
    assert words[-4:] == ["--out", "reports/4m", "--workers", "3"]
    assert words[0] == "report"


def test_a_script_is_run_where_selmem_has_no_command_for_it(tmp_path, monkeypatch):
    (tmp_path / "card_tables.py").write_text("import sys\nprint(' '.join(sys.argv[1:]))")
    monkeypatch.setattr(study, "SCRIPTS", tmp_path)
    args = arguments(tmp_path, ["report"], sources=SOURCES, only=["tables/mamba-own-1m-probe"])
    [card] = study.chosen(args)
    assert study.start(card, args, None, 0).wait() == 0
    expected = "reports/1m mamba-own-1m-probe --controls measured/1m-controls --tables tables"
    assert (tmp_path / f"{card.out}.log").read_text().strip() == expected


def test_null_probe_of_one_corpus_serves_both_encoders(tmp_path):
    args = arguments(tmp_path, ["causal", "measure-causal"])
    runs = study.chosen(args)
    assert study.execute(runs, args) == 0
    for read, own in ("ab", "ba"):
        copy = json.loads((tmp_path / f"causal/null-{read}-{own}-1/config.json").read_text())
        assert copy["encoder_fingerprint"] == f"causal/probe-{read}-{own}-1"
    assert sum(words[0] == "train" for words in calls(tmp_path)) == 18
    assert sum(words[0] == "measure" for words in calls(tmp_path)) == 12


def test_stores_are_made_for_the_runs_that_need_them(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(study, "script", lambda name, *words: made.append((name, words[-1].name)))
    (tmp_path / "tokenizer-neox").mkdir()
    (tmp_path / "tokenizer-neox/tokenizer.json").write_text("{}")
    study.prepare(tmp_path, ["a=b"], [*study_runs.neox(), *study_runs.causal()])
    assert made == [("build_corpus.py", "corpus-neox")]
    study.prepare(tmp_path, ["a=b"], study_runs.encoders())
    assert made[1:] == [("train_tokenizer.py", "tokenizer"), ("build_corpus.py", "corpus")]
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus/store.json").write_text("{}")
    study.prepare(tmp_path, [], study_runs.encoders())
    assert len(made) == 3


@pytest.mark.parametrize(("corpus", "missing"), [([], "--corpus"), (["a=b"], "tokenizer-neox")])
def test_runs_of_a_store_that_cannot_be_made_are_named_and_the_others_run(
    tmp_path, capsys, corpus, missing
):
    args = arguments(tmp_path, ["encoders", "neox"], only=["encoders/1m", "encoders/4m-neox"])
    runs = study.chosen(args)
    study.prepare(tmp_path, corpus, runs)
    told = capsys.readouterr().err
    assert f"{missing}; waiting for it: encoders/4m-neox\n" in told
    assert study.execute(runs, args) == study.UNFINISHED
    assert [words[words.index("--out") + 1] for words in calls(tmp_path)] == ["encoders/1m"]


def test_a_store_is_needed_by_no_run_that_is_done(tmp_path, capsys):
    [run] = study_runs.encoders()[-1:]
    (tmp_path / run.mark).parent.mkdir(parents=True)
    (tmp_path / run.mark).write_text("{}")
    study.prepare(tmp_path, [], [run])
    assert capsys.readouterr().err == ""


def test_list_states_what_is_done_and_the_minutes_to_do(tmp_path, capsys):
    study.show(study_runs.encoders(), tmp_path)
    (tmp_path / "encoders/45m").mkdir(parents=True)
    (tmp_path / "encoders/45m/config.json").write_text("{}")
    study.show(study_runs.encoders(), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    before, after = (int(line.split()[2]) for line in lines if line.startswith("to do"))
    assert before > after + 7
    assert lines[5].split()[3] == "done"


def test_speed_is_the_measured_one_at_the_measured_shape():
    bench = speed.read_bench()
    measured = bench["train_130m"][speed.MEASURED_AT]["tokens_s"]
    assert speed.tokens_per_second(speed.REFERENCE, bench) == pytest.approx(measured, rel=1e-6)
    assert speed.measured_tokens_per_second("130m", bench) == measured
    found = [speed.tokens_per_second(shape, bench) for shape in speed.STATE_SPACES.values()]
    assert found == sorted(found, reverse=True)
    null = speed.tokens_per_second(speed.REFERENCE, bench, reads_state=False)
    assert 1.1 * measured < null < 1.6 * measured


def test_a_measured_size_is_not_estimated():
    bench = {**speed.read_bench(), "train_sizes": {"370m B=32": {"tokens_s": 7.0}}}
    assert "at 7 tokens/s (measured)" in speed.cost("370m", 1e9, bench)
    assert "(estimated from the 130M shape)" in speed.cost("790m", 1e9, bench)


def test_the_recipe_of_real_checkpoints_states_the_cost_that_speed_prints():
    header = (SCRIPTS / "state_spaces.sh").read_text()
    bench = speed.read_bench()
    for size in speed.STATE_SPACES:
        hours = re.search(r"([\d.]+) GPU hours", speed.cost(size, 2**30, bench))[1]
        assert f"{size}: {hours}" in header
    config = yaml.safe_load((SCRIPTS / "configs/study/probe-checkpoint.yaml").read_text())
    assert config["max_steps"] * config["tokens_per_batch"] == 2**30


def test_dry_run_builds_the_whole_shape():
    found = describe("130m")
    assert "129,135,360 parameters" in found
    assert f"24 layers, a state of {24 * 1536 * 20:,} numbers" in found


def training(steps, bits, **settings):
    return {
        "steps": steps, "tokens": steps * 10, "corpus": {"content_hash": "x"},
        "held_out_bits": dict(zip(("64", "256"), bits, strict=True)),
        "settings": {"max_steps": steps, "seed": 0, **settings},
    }  # fmt: skip


def test_convergence_is_the_share_that_twice_the_tokens_gain():
    gains = still_to_gain(training(10, (2.0, 4.0)), training(20, (1.9, 3.98)))
    assert gains == pytest.approx({"64": 0.05, "256": 0.005})


@pytest.mark.parametrize(
    ("twice", "message"),
    [
        (training(30, (1, 1)), "30 steps are not twice 10"),
        (training(20, (1, 1), seed=1), "differ in seed"),
        ({**training(20, (1, 1)), "corpus": {}}, "differ in corpus"),
    ],
)
def test_convergence_compares_nothing_else(twice, message):
    with pytest.raises(ValueError, match=message):
        still_to_gain(training(10, (1, 1)), twice)


def test_recipes_can_be_executed():
    for name in ("reproduce.sh", "state_spaces.sh"):
        assert (SCRIPTS / name).stat().st_mode & stat.S_IXUSR
