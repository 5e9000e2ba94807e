"""Staging: a folder gets exactly what its repository may hold, and the same bytes every time."""

import ast
import json
import shutil
from importlib.metadata import distributions
from pathlib import Path

import pytest
from huggingface_hub import SpaceCard

import selmem.omission_rate
import selmem.probe
from sample_tables import write_measured
from selmem.bundle import BUNDLED
from selmem.errors import InputError
from selmem.hub import stage, verify
from selmem.hub.checksums import check_sums
from selmem.hub.models import without_places
from tiny_release import write_card_tables

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "hub_cards"
PROBE_CODE = Path(selmem.probe.__file__).parent
METRIC = Path(selmem.omission_rate.__file__).parent
STANDARD_LIBRARY = set(__import__("sys").stdlib_module_names)


@pytest.fixture
def probe(release, tmp_path):
    """A copy of the probe's folder, free to be changed."""
    return shutil.copytree(release.probe, tmp_path / "mamba-tiny-probe")


def stage_model(path, out, repo_id=None, **options):
    return stage("model", path, repo_id or f"selmem/{path.name}", TEMPLATES, out, **options)


def test_a_staged_probe_holds_its_code_its_tokenizer_and_nothing_else(release, tmp_path):
    staged = stage_model(release.probe, tmp_path / "out")
    code = {path.name for path in PROBE_CODE.glob("*.py")} - {"__init__.py"}
    assert {"modeling_mamba_probe.py", "triton_scan.py"} <= code
    assert set(staged.files) == code | {
        "LICENSE",
        "README.md",
        "SHA256SUMS",
        "config.json",
        "generation_config.json",
        "learning_curve.jsonl",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.json",
        "verification.json",
    }
    assert check_sums(staged.folder) == len(staged.files) - 1
    config = json.loads((staged.folder / "config.json").read_text())
    assert config["auto_map"]["AutoModel"] == "modeling_mamba_probe.MambaProbe"
    tokenizer = json.loads((staged.folder / "tokenizer_config.json").read_text())
    assert tokenizer["padding_side"] == "left"
    assert tokenizer["pad_token"] == tokenizer["eos_token"]


def test_a_staged_encoder_is_a_stock_model_without_code(release, tmp_path):
    staged = stage_model(release.encoder, tmp_path / "out")
    assert not [name for name in staged.files if name.endswith(".py")]
    config = json.loads((staged.folder / "config.json").read_text())
    assert config["architectures"] == ["MambaForCausalLM"]
    assert "auto_map" not in config


@pytest.mark.parametrize("name", ["mamba-tiny", "mamba-tiny-probe", "mamba-tiny-null-probe"])
def test_the_bundled_models_can_be_published_and_verified(name, tmp_path):
    if not (BUNDLED / name).is_dir():
        pytest.skip(f"{name} is not bundled yet")
    staged = stage_model(BUNDLED / name, tmp_path / name)
    assert verify(staged.folder).kind == ("encoder" if name == "mamba-tiny" else "probe")


def test_staging_twice_gives_the_same_bytes(release, tmp_path):
    first = stage_model(release.probe, tmp_path / "one").folder / "SHA256SUMS"
    second = stage_model(release.probe, tmp_path / "two").folder / "SHA256SUMS"
    assert first.read_bytes() == second.read_bytes()


def test_nothing_staged_names_a_place_on_this_machine(release, tmp_path):
    staged = stage_model(release.probe, tmp_path / "out")
    assert json.loads((release.probe / "config.json").read_text())[
        "encoder_name_or_path"
    ].startswith("/")
    config = json.loads((staged.folder / "config.json").read_text())
    assert config["encoder_name_or_path"] == "selmem/mamba-tiny"
    for name in staged.files:
        assert str(release.probe.parent).encode() not in (staged.folder / name).read_bytes(), name


def test_places_are_cut_at_every_depth():
    content = {"a": ["/x/y", {"b": "../z/w"}], "c": "state-spaces/mamba-130m", "d": 1, "e": None}
    assert without_places(content) == {
        "a": ["y", {"b": "w"}],
        "c": "state-spaces/mamba-130m",
        "d": 1,
        "e": None,
    }


def test_the_listing_shows_every_file_with_its_size(release, tmp_path):
    staged = stage_model(release.probe, tmp_path / "out")
    listing = staged.listing()
    for path in staged.folder.iterdir():
        assert f"{path.stat().st_size:>12,}  {path.name}\n" in listing
    total = sum(path.stat().st_size for path in staged.folder.iterdir())
    assert f"{total:>12,}  bytes in {len(staged.files)} files" in listing
    assert "model selmem/mamba-tiny-probe, tag v" in listing


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "state.pkl", "x.npy"])
def test_a_file_that_could_hold_a_pickle_is_refused(probe, tmp_path, name):
    (probe / name).write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match=rf"{name} may hold pickled objects"):
        stage_model(probe, tmp_path / "out")


@pytest.mark.parametrize("name", ["notes.txt", "model.safetensors.tmp", ".env"])
def test_an_unknown_file_is_refused(probe, tmp_path, name):
    (probe / name).write_text("x")
    with pytest.raises(InputError, match=rf"{name} is no file of a model that can be published"):
        stage_model(probe, tmp_path / "out")


def test_code_and_checkpoints_beside_a_model_are_not_published(probe, tmp_path):
    (probe / "modeling_mamba_probe.py").write_text("raise SystemExit('foreign code')")
    (probe / "checkpoints").mkdir()
    (probe / "checkpoints/optimizer.pt").write_bytes(b"\x80")
    staged = stage_model(probe, tmp_path / "out")
    assert "foreign code" not in (staged.folder / "modeling_mamba_probe.py").read_text()
    assert not (staged.folder / "checkpoints").exists()


@pytest.mark.parametrize(
    ("kind", "repo_id", "message"),
    [
        ("models", "a/b", "kind is 'models', expected one of model, dataset, metric, space"),
        ("model", "b", "the repository is 'b', expected NAMESPACE/NAME"),
    ],
)
def test_wrong_arguments_are_refused(release, tmp_path, kind, repo_id, message):
    with pytest.raises(InputError, match=message):
        stage(kind, release.probe, repo_id, TEMPLATES, tmp_path / "out")


def test_publishing_outside_a_checkout_says_so(release, tmp_path):
    with pytest.raises(InputError, match="runs in a checkout, or with --templates"):
        stage("model", release.probe, "a/b", tmp_path / "none", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x").touch()
    with pytest.raises(InputError, match="is not empty"):
        stage_model(release.probe, tmp_path / "out")


def test_a_folder_that_holds_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"is no model: config\.json"):
        stage_model(tmp_path / "nothing", tmp_path / "out")


def test_a_dataset_is_staged_whole(tmp_path):
    measured = write_measured(tmp_path / "measured")
    staged = stage("dataset", measured, "selmem/omissions", TEMPLATES, tmp_path / "out")
    tables = ("chunks", "reconstructions", "tokens", "words", "omission")
    expected = {f"data/{name}/mamba_tiny_probe.parquet" for name in tables}
    assert set(staged.files) == expected | {"README.md", "LICENSE", "SHA256SUMS"}
    assert staged.repo_type == "dataset"


def test_the_metric_is_staged_as_it_is_with_what_was_measured_below_its_card(tmp_path):
    staged = stage("metric", METRIC, "selmem/omission_rate", TEMPLATES, tmp_path / "out")
    sources = {path.name for path in METRIC.iterdir() if path.is_file()}
    assert set(staged.files) == sources | {"LICENSE", "SHA256SUMS"}
    for name in sources - {"README.md"}:
        assert (staged.folder / name).read_bytes() == (METRIC / name).read_bytes()
    card = (staged.folder / "README.md").read_text()
    assert card.startswith((METRIC / "README.md").read_text().rstrip())
    assert SpaceCard(card).data.tags == ["evaluate", "metric"]
    assert staged.repo_type == "space"


def test_the_metric_card_shows_the_committed_tables(tmp_path):
    templates = shutil.copytree(TEMPLATES, tmp_path / "hub_cards")
    shutil.copyfile(ROOT / "LICENSE", tmp_path / "LICENSE")
    write_card_tables(templates / "tables/mamba-tiny-probe")
    staged = stage("metric", METRIC, "selmem/omission_rate", templates, tmp_path / "out")
    rows = [
        line
        for line in (staged.folder / "README.md").read_text().splitlines()
        if line.startswith("| `mamba-tiny-probe` | gsm8k")
    ]
    assert rows == [
        "| `mamba-tiny-probe` | gsm8k | 4 | 4,936 | 0.1400 | 0.9000 |",
        "| `mamba-tiny-probe` | gsm8k | 16 | 19,744 | 0.2600 | 0.9000 |",
    ]


def test_a_metric_must_have_the_name_of_its_repository(tmp_path):
    with pytest.raises(
        InputError, match=r"has no omissions\.py; evaluate\.load\('selmem/omissions'"
    ):
        stage("metric", METRIC, "selmem/omissions", TEMPLATES, tmp_path / "out")


@pytest.fixture
def demo(tmp_path):
    """The folder of a Space."""
    folder = tmp_path / "demo"
    folder.mkdir()
    (folder / "app.py").write_text("import gradio\n")
    (folder / "requirements.txt").write_text("torch\ngradio==6.31.0\n")
    models = {"encoder": "selmem/mamba-tiny", "probe": "selmem/mamba-tiny-probe"}
    (folder / "models.json").write_text(json.dumps([models]))
    return folder


def test_a_demo_is_staged_with_the_sources_of_the_package(demo, tmp_path):
    staged = stage("space", demo, "selmem/reconstruction", TEMPLATES, tmp_path / "out")
    assert {"app.py", "requirements.txt", "README.md", "selmem/__init__.py"} <= set(staged.files)
    assert "selmem/probe/triton_scan.py" in staged.files
    assert not [name for name in staged.files if "__pycache__" in name]
    installed = {found.name: found.version for found in distributions(path=[str(staged.folder)])}
    assert installed == {"selmem": selmem.__version__}, "the copy asks for its own version"
    data = SpaceCard((staged.folder / "README.md").read_text()).data
    assert (data.sdk, data.sdk_version, data.app_file) == ("gradio", "6.31.0", "app.py")
    assert data.python_version == "3.12"
    assert data.models == ["selmem/mamba-tiny", "selmem/mamba-tiny-probe"]
    preloaded = [line.split()[0] for line in data.preload_from_hub]
    assert preloaded == data.models, "fetched when the Space is built"


def test_a_demo_shows_the_committed_tables(demo, tmp_path):
    templates = shutil.copytree(TEMPLATES, tmp_path / "hub_cards")
    shutil.copyfile(ROOT / "LICENSE", tmp_path / "LICENSE")
    write_card_tables(templates / "tables/mamba-tiny-probe")
    staged = stage("space", demo, "selmem/reconstruction", templates, tmp_path / "out")
    assert "tables/mamba-tiny-probe/omission.parquet" in staged.files


def test_a_demo_that_could_not_start_is_refused(demo, tmp_path):
    (demo / "requirements.txt").write_text("gradio>=6\n")
    with pytest.raises(InputError, match="names no gradio==VERSION"):
        stage("space", demo, "selmem/reconstruction", TEMPLATES, tmp_path / "one")
    (demo / "weights.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"weights\.bin is no file of a Space"):
        stage("space", demo, "selmem/reconstruction", TEMPLATES, tmp_path / "two")
    (demo / "app.py").unlink()
    with pytest.raises(InputError, match=r"has no app\.py"):
        stage("space", demo, "selmem/reconstruction", TEMPLATES, tmp_path / "three")


def imported_modules(path):
    """Yield (first name of the module, whether the import may fail harmlessly, is flat sibling)."""
    tree = ast.parse(path.read_text())
    guarded = {
        id(node)
        for scope in ast.walk(tree)
        if isinstance(scope, ast.Try | ast.FunctionDef)
        for node in ast.walk(scope)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.split(".")[0], id(node) in guarded, False
        elif isinstance(node, ast.ImportFrom):
            sibling = node.level == 1 and node.module is not None and "." not in node.module
            yield (node.module or "").split(".")[0], id(node) in guarded, sibling


OPTIONAL = {"triton", "mamba_ssm", "causal_conv1d"}


@pytest.mark.parametrize(
    "path", [p for p in PROBE_CODE.glob("*.py") if p.name != "__init__.py"], ids=lambda p: p.name
)
def test_code_that_travels_to_the_hub_imports_only_what_is_there(path):
    for module, guarded, sibling in imported_modules(path):
        if sibling:
            assert (PROBE_CODE / f"{module}.py").is_file()
        elif module in OPTIONAL:
            # triton_scan.py itself is imported inside a function
            assert guarded or path.name.startswith("triton"), module
        else:
            assert module in STANDARD_LIBRARY | {"torch", "transformers"}, module


@pytest.mark.parametrize("path", list(METRIC.glob("*.py")), ids=lambda p: p.name)
def test_the_metric_imports_only_what_evaluate_brings(path):
    allowed = STANDARD_LIBRARY | {"numpy", "datasets", "evaluate"}
    allowed |= {"gradio"} if path.name == "app.py" else set()
    for module, _, sibling in imported_modules(path):
        assert (METRIC / f"{module}.py").is_file() if sibling else module in allowed, module


def test_no_code_of_ours_loads_unrestricted_pickles():
    found = 0
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            assert called not in ("pickle.load", "pickle.loads", "joblib.load"), path
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called == "torch.load":
                found += 1
                assert options.get("weights_only") == "True", path
            if called.endswith("np.load"):
                assert options.get("allow_pickle", "False") == "False", path
            assert options.get("trust_remote_code", "False") == "False", path
    assert found, "the search finds nothing, so it proves nothing"
