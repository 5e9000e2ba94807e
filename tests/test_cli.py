import json
import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields

import pytest
import torch
from safetensors.torch import load_file, save_file

import selmem
from selmem import bundled_path
from selmem.cli import build_parser, main
from selmem.frequency import load_frequencies
from selmem.reconstruct import ReconstructedWord, Reconstruction
from selmem.tables import SCHEMAS, read_table
from selmem.tokenization import load_tokenizer
from small_models import small_encoder

ENCODER, PROBE, NULL_PROBE = (
    str(bundled_path(name)) for name in ("mamba-tiny", "mamba-tiny-probe", "mamba-tiny-null-probe")
)
TEXT = "The old bridge over the river was closed on Monday because of the flood."
MEASURED = ("chunks", "reconstructions", "tokens", "words")


@pytest.fixture
def command(capsys):
    """Return a function that runs a command; it returns status, output and error output."""

    def run(*arguments):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # of the parser
            status = stop.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def refused(command):
    """Return a function that runs a command with wrong input and returns the line it says.

    Nothing may be written to `out`.
    """

    def run(*arguments, out):
        before = content(out)
        status, shown, said = command(*arguments, "--out", out)
        assert (status, shown) == (2, "")
        assert re.fullmatch(rf"selmem {arguments[0]}: [^\n]+\n", said)
        assert content(out) == before
        return said

    return run


def content(place):
    """Return what a file holds, or all that is in a folder; None where there is neither."""
    if place.is_dir():
        return {path: path.is_dir() or path.read_bytes() for path in place.rglob("*")}
    return place.read_bytes() if place.is_file() else None


def sample(path, n_documents=12):
    """Write the beginnings of some documents of the bundled sample, with their words."""
    lines = (bundled_path("sample") / "documents.jsonl").read_text(encoding="utf-8").splitlines()
    records = []
    for line in lines[:: len(lines) // n_documents][:n_documents]:
        record = json.loads(line)
        words = record["words"][:20]
        records.append({**record, "text": record["text"][: words[-1]["end"]], "words": words})
    path.write_text("\n".join(map(json.dumps, records)) + "\n", encoding="utf-8")
    return path


def measurement(data, *, encoder=ENCODER, probe=PROBE):
    models = ("--encoder", encoder, "--probe", probe)
    return ("measure", *models, "--data", data, "--lengths", 4, 8, "--annotate", "none")


def copied(name, folder, **weights):
    """Copy a bundled model, with some weights in place of its own."""
    shutil.copytree(bundled_path(name), folder)
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, **weights}, folder / "model.safetensors", {"format": "pt"})
    return folder


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-1000])


WRONG_TEXTS = {
    "empty": ("a.txt", b"", r"a\.txt has no text \(1 empty documents\); give a source with text"),
    "blank": ("a.txt", b" \n", r"a\.txt has no text"),
    "type": ("a.xyz", TEXT.encode(), r"a\.xyz: unknown file type '\.xyz'; known: \.txt "),
    "tags": (
        "a.jsonl",
        b'{"tokens": ["two", "words"], "pos_tags": ["CD"]}',
        r"line 1: 2 tokens but 1 `pos_tags`; expected one for each token",
    ),
    "columns": ("a.conll", b"-DOCSTART- -X- -X- O\n\nEU NNP I-NP\n", "3 columns, expected 4"),
    "utf8": ("a.txt", b"caf\xe9", "byte 0xe9 at offset 3 is not UTF-8; convert the file"),
    "utf8-record": ("a.jsonl", b'{"text": "caf\xe9"}', "byte 0xe9 at offset 13 is not UTF-8"),
    "json": ("a.jsonl", b'{"text": ', "line 1: not JSON"),
    "parquet": ("a.parquet", b"PAR1 and no more", "is not a whole Parquet file .*; copy it again"),
    "absent": ("a.txt", None, r"a\.txt does not exist; check the path"),
}


@pytest.mark.parametrize("task", ["measure", "count", "train"])
@pytest.mark.parametrize(("name", "written", "message"), WRONG_TEXTS.values(), ids=WRONG_TEXTS)
def test_wrong_text_is_told(refused, tmp_path, task, name, written, message):
    if written is not None:
        (tmp_path / name).write_bytes(written)
    arguments = {
        "measure": measurement(tmp_path / name),
        "count": ("count", "--data", tmp_path / name, "--tokenizer", ENCODER),
        "train": ("train", "--data", tmp_path / name, "--encoder", ENCODER),
    }
    assert re.search(message, refused(*arguments[task], out=tmp_path / "out"))


def test_text_shorter_than_a_chunk_is_told(refused, tmp_path):
    (tmp_path / "a.txt").write_text("Hi")
    said = refused(*measurement(tmp_path / "a.txt"), out=tmp_path / "out")
    assert "the longest document has 2 tokens, 4 are needed; choose a shorter length" in said


WRONG_FLAGS = {
    "above the maximum": ("--lengths 512", "length 512 is above the 256 tokens that mamba-tiny-"),
    "no length": ("--lengths 0", "'0' is neither a number of tokens nor `whole`; see `selmem meas"),
    "negative": ("--lengths -4", "'-4' is neither a number"),
    "twice": ("--lengths 4 4", "expected different positive numbers"),
    "no chunk": ("--max-chunks 0", "max_chunks is 0, expected at least 1"),
    "no number": ("--max-chunks few", "invalid int value: 'few'; see `selmem measure --help`"),
    "seed": ("--seed -1", "'-1' is no whole number from 0 on; see `selmem measure --help`"),
    "null": (f"--null-probe {PROBE}", "is no null probe: it reads 'state', not 'none'"),
    "probe": (f"--probe {ENCODER}", "holds a model of type 'mamba'; expected a probe"),
    "encoder": ("--encoder /no/where", "/no/where is neither a local folder nor a model that"),
    "counts": ("--frequencies no.parquet", r"no\.parquet does not exist; `selmem count` writes it"),
    "overlap": ("--overlap no.parquet", r"no\.parquet does not exist; `selmem overlap` writes it"),
    "device": ("--device cuda:99", "device 'cuda:99' is not available"),
    "unknown": ("--lenghts 4", "unknown arguments: --lenghts 4; see `selmem measure --help`"),
}


@pytest.mark.parametrize(("flags", "message"), WRONG_FLAGS.values(), ids=WRONG_FLAGS)
def test_wrong_flags_of_measure_are_told(refused, tmp_path, flags, message):
    arguments = measurement(sample(tmp_path / "a.jsonl"))
    assert re.search(message, refused(*arguments, *flags.split(), out=tmp_path / "out"))


WRONG_SETTINGS = {
    "unknown": ("--stpes 3", "unknown settings: --stpes 3; see `selmem train --help`"),
    "no number": ("--max-steps few", "invalid int value: 'few'; see `selmem train --help`"),
    "choice": ("--condition half", "invalid choice: 'half'"),
    "share": ("--held-out 2", "held_out is 2.0, expected a share from 0 to 1"),
    "file": ("--config absent.json", r"cannot read absent\.json"),
    "resume": ("--resume", "holds no run to resume; leave out --resume to start one"),
    "long": (
        "--lengths 200 --length-weights 1",
        "no training document is long enough for windows of .200. tokens; leave",
    ),
}


@pytest.mark.parametrize(("flags", "message"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
def test_wrong_settings_of_train_are_told(refused, tmp_path, flags, message):
    arguments = ("train", "--encoder", ENCODER, "--data", sample(tmp_path / "a.jsonl"))
    assert re.search(message, refused(*arguments, *flags.split(), out=tmp_path / "out"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "selmem: the following arguments are required: COMMAND; see `selmem --help`"),
        (["mesure"], "selmem: .* invalid choice: 'mesure' .*'measure'.*; see `selmem --help`"),
        (["measure"], "selmem measure: .* are required: --encoder, --probe, --data, --lengths"),
        (["train"], "selmem train: .* are required: --out, --data, --encoder; see `selmem train"),
        (["reconstruct", " "], "selmem reconstruct: the text is empty; give at least one word"),
        (["reconstruct", "word " * 300], "has 301 tokens, the probe was trained for up to 256"),
        (["reconstruct", "caf\udce9"], "the text is not UTF-8 at character 3; give it in UTF-8"),
        (["reconstruct", TEXT, "--probe", PROBE], "give --encoder and --probe together"),
        (["verify", "no/such/folder"], r"\(no local folder\) is no repository id; expected"),
        (["publish", "model", PROBE, "nowhere"], "the repository is 'nowhere', expected NAMESPACE"),
    ],
    ids=lambda value: " ".join(value[:2])[:20] if isinstance(value, list) else "",
)
def test_wrong_arguments_are_told_in_one_line(command, arguments, message):
    status, shown, said = command(*arguments)
    assert (status, shown, said.count("\n")) == (2, "", 1)
    assert re.search(message, said)


def test_a_probe_of_another_encoder_is_refused_with_both_names(refused, tmp_path):
    folder = tmp_path / "stranger"
    small_encoder(vocab_size=4096, hidden_size=192).save_pretrained(folder)
    load_tokenizer(ENCODER).save_pretrained(folder)
    arguments = measurement(sample(tmp_path / "a.jsonl"), encoder=folder)
    said = refused(*arguments, out=tmp_path / "out")
    assert re.search("reads states of selmem/mamba-tiny .* not of .*stranger .* use that enc", said)


@pytest.mark.parametrize(
    ("role", "name"), [("encoder", "mamba-tiny"), ("probe", "mamba-tiny-probe")]
)
def test_damaged_weights_are_refused(refused, tmp_path, role, name):
    no_numbers = torch.full((192,), float("nan"), dtype=torch.bfloat16)
    folder = copied(name, tmp_path / name, **{"backbone.norm_f.weight": no_numbers})
    arguments = measurement(sample(tmp_path / "a.jsonl"), **{role: folder})
    said = refused(*arguments, out=tmp_path / "out")
    assert re.search(r"backbone\.norm_f\.weight holds NaN or infinity; the \w+ is damaged", said)
    cut_short(folder / "model.safetensors")
    said = refused(*arguments, out=tmp_path / "out")
    assert re.search(rf"{name}.* is damaged or cut short|{name} does not load as a probe", said)


@pytest.mark.parametrize("below", ["", "folder"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    refused, monkeypatch, tmp_path, below
):
    for work in ("measurement.run.load_models", "frequency.count_texts", "overlap.find_overlap"):
        monkeypatch.setattr(f"selmem.{work}", pytest.fail)
    out, data = tmp_path / "file" / below, sample(tmp_path / "a.jsonl")
    (tmp_path / "file").write_text("in the way")
    for arguments in (measurement(data), ("demo",)):
        assert "file is a file; choose a folder you can write to" in refused(*arguments, out=out)
    said = refused("train", "--encoder", ENCODER, "--data", data, out=out)
    assert re.search("cannot write .*; choose a folder you can write to", said)
    for arguments in (
        ("count", "--data", data, "--tokenizer", ENCODER),
        ("overlap", "--data", data, "--corpus", data),
    ):
        said = refused(*arguments, out=tmp_path / "file" / "counts.parquet")
        assert "file is a file; choose a folder you can write to" in said
        assert "it is a folder; name a file in it" in refused(*arguments, out=tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("words.parquet", "is not a whole Parquet file .*; make it again"),
        ("run.json", "is no JSON .*; `selmem measure` writes it"),
    ],
)
def test_truncated_tables_are_refused(refused, measured, tmp_path, name, message):
    folder = shutil.copytree(measured, tmp_path / "measured")
    file = folder / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert re.search(message, refused("report", folder, out=tmp_path / "out"))


def test_a_report_of_nothing_is_refused(refused, tmp_path):
    said = refused("report", tmp_path / "nowhere", out=tmp_path / "out")
    assert re.search(r"chunks\.parquet does not exist; `selmem measure` writes it", said)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    arguments = measurement(sample(folder / "a.jsonl"))
    flags = ("--null-probe", NULL_PROBE, "--max-chunks", "12", "--out", folder / "out")
    assert main([str(argument) for argument in (*arguments, *flags)]) == 0
    return folder / "out"


def test_measure_writes_its_tables_and_a_second_run_says_there_is_nothing_to_do(command, measured):
    for name in MEASURED:
        table = read_table(measured / f"{name}.parquet")
        assert table.num_rows
        assert [field.name for field in SCHEMAS[name]] == table.column_names
    assert sorted(path.name for path in measured.iterdir()) == sorted(
        [*(f"{name}.parquet" for name in MEASURED), "run.json"]
    )
    before = content(measured)
    flags = ("--null-probe", NULL_PROBE, "--max-chunks", 12)
    status, shown, said = command(
        *measurement(measured.parent / "a.jsonl"), *flags, "--out", measured
    )
    assert (status, shown) == (0, f"{measured}\n")
    assert said == f"{measured} is already measured with this configuration\n"
    assert content(measured) == before
    status, _, said = command(*measurement(measured.parent / "a.jsonl"), "--out", measured)
    assert status == 2
    assert "choose another folder or delete it" in said


def test_report_prints_its_table_and_writes_page_figures_and_omission(command, measured, tmp_path):
    status, shown, said = command("report", measured, "--out", tmp_path / "out")
    assert (status, said) == (0, "")
    *table, empty, path = shown.splitlines()
    assert "mamba-tiny, read by mamba-tiny-probe" in table[0]
    assert any(line.split()[:1] == ["NOUN"] for line in table)
    assert max(map(len, table)) <= 100
    assert (empty, path) == ("", str(tmp_path / "out" / "report.html"))
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000
    assert read_table(tmp_path / "out" / "omission.parquet").num_rows
    assert list((tmp_path / "out" / "figures").glob("*.png"))


def test_a_probe_trained_for_a_moment_can_be_measured(command, tmp_path):
    data = sample(tmp_path / "a.jsonl")
    settings = "--max-steps 2 --tokens-per-batch 64 --held-out-tokens 64 --held-out 0.3"
    status, shown, _ = command(
        *("train", "--encoder", ENCODER, "--data", data, "--out", tmp_path / "probe"),
        *(*settings.split(), "--lengths", 4, 8, "--length-weights", 1, 1),
    )
    assert (status, shown) == (0, f"{tmp_path / 'probe'}\n")
    arguments = measurement(data, probe=tmp_path / "probe")
    assert command(*arguments, "--max-chunks", 4, "--out", tmp_path / "out")[0] == 0
    probes = read_table(tmp_path / "out" / "reconstructions.parquet")["probe"].unique().to_pylist()
    assert probes == ["probe"]


def test_counts_are_those_of_the_tokenizer(command, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT * 3)
    out = tmp_path / "new" / "counts.parquet"
    arguments = ("count", "--data", tmp_path / "a.txt", "--tokenizer", ENCODER)
    status, shown, said = command(*arguments, "--out", out)
    assert (status, shown) == (0, f"{out}\n")
    tokenizer = load_tokenizer(ENCODER)
    n_tokens = len(tokenizer(TEXT * 3)["input_ids"])
    assert re.fullmatch(rf"{n_tokens} tokens, \d+ words, 1 documents\n", said)
    assert load_frequencies(out, tokenizer).n_tokens == n_tokens


def test_reconstruct_prints_documented_json(command):
    status, shown, said = command("reconstruct", TEXT, "--json")
    assert (status, said) == (0, "")
    found = json.loads(shown)
    assert set(found) == {field.name for field in fields(Reconstruction)}
    for name in found:
        assert f"        {name}: " in Reconstruction.__doc__
    for word in found["words"]:
        assert set(word) == {field.name for field in fields(ReconstructedWord)}
    assert found["text"] == TEXT
    assert set(found["omission_rate"]) == {"count", "aligned", "forced"}


def test_reconstruct_marks_words_and_lists_their_bits(command):
    status, shown, said = command("reconstruct", "--bits", TEXT)
    assert (status, said) == (0, "")
    lines = shown.splitlines()
    assert re.sub(r"[\[\]]", "", lines[0]) == TEXT
    assert lines[2].startswith("reconstruction: ")
    assert lines[-16].split() == ["word", "null", "probe", "recovered"]
    assert [line.split()[0] for line in lines[-15:]] == re.findall(r"\w+|\.", TEXT)
    assert command("reconstruct", TEXT)[1] == "\n".join(lines[:4]) + "\n"


def test_version_is_the_packages(command):
    assert command("--version") == (0, f"selmem {selmem.__version__}\n", "")


def test_every_command_explains_itself(command):
    [commands] = [a.choices for a in build_parser()._actions if a.dest == "command"]
    for name in commands:
        status, shown, said = command(name, "--help")
        assert (status, said) == (0, "")
        assert shown.startswith(f"usage: selmem {name} ")
        assert "--help" in shown


@pytest.mark.parametrize(
    ("arguments", "heard"),
    [
        (("reconstruct", TEXT), ["warning"]),
        (("reconstruct", TEXT, "-v"), ["debug", "info", "warning"]),
        (("-v", "reconstruct", TEXT), ["debug", "info", "warning"]),
        (("count", "--data", "a", "--tokenizer", "b", "--out", "c"), ["info", "warning"]),
    ],
    ids=["short", "verbose", "verbose first", "long"],
)
def test_short_commands_log_only_what_they_are_asked_to(command, monkeypatch, arguments, heard):
    def log(*_arguments, **_options):
        for level in ("debug", "info", "warning"):
            getattr(logging.getLogger("selmem.part"), level)(level)
        raise KeyboardInterrupt

    monkeypatch.setattr("selmem.reconstruct.reconstruct", log)
    monkeypatch.setattr("selmem.frequency.count", log)
    status, shown, said = command(*arguments)
    *logged, last = said.splitlines()
    assert (status, shown, logged) == (130, "", heard)
    assert last.endswith(": interrupted")
    assert not logging.getLogger("selmem").handlers


def test_a_defect_keeps_its_traceback(command, monkeypatch):
    monkeypatch.setattr("selmem.reconstruct.reconstruct", {}.pop)
    with pytest.raises(TypeError):
        command("reconstruct", TEXT)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["reconstruct", b"caf\xe9 au lait"], 2, "the text is not UTF-8 at character 3; give it"),
        (["measure", "--lengths", "x"], 2, "'x' is neither a number of tokens nor `whole`"),
    ],
    ids=["bytes", "flags"],
)
def test_a_process_exits_with_the_status_and_one_line(arguments, status, message):
    environment = {**os.environ, "PYTHONUTF8": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "selmem", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1)
    assert message in done.stderr
