"""The whole way: publish everything to a loopback Hub, then use it as strangers would.

Every user is a fresh interpreter whose only Hub is the loopback server.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from huggingface_hub import DatasetCard, ModelCard, SpaceCard, constants, get_session, repocard

import selmem.omission_rate
from fresh_interpreter import result, start
from loopback_hub import TOKEN, LoopbackHub
from sample_tables import SECRET, write_measured
from selmem.errors import InputError
from selmem.hub import publish, stage, verify
from tiny_release import TinyRelease, make_release

TEMPLATES = Path(__file__).parents[1] / "hub_cards"
METRIC = Path(selmem.omission_rate.__file__).parent
KINDS = {
    "mamba-tiny": "encoder",
    "mamba-tiny-probe": "probe",
    "mamba-tiny-null-probe": "probe",
    "omissions": "dataset",
    "omission_rate": "files",
    "reconstruction": "files",
}


@dataclass(frozen=True)
class Published:
    hub: LoopbackHub
    release: TinyRelease
    commits: dict  # repository -> commit
    record: dict  # the probe's verification.json
    home: Path  # folder for the caches of users


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("roundtrip")
    release = make_release(folder / "release")
    sources = {
        ("model", "selmem/mamba-tiny"): release.encoder,
        ("model", "selmem/mamba-tiny-probe"): release.probe,
        ("model", "selmem/mamba-tiny-null-probe"): release.null_probe,
        ("dataset", "selmem/omissions"): write_measured(folder / "measured"),
        ("metric", "selmem/omission_rate"): METRIC,
        ("space", "selmem/reconstruction"): TEMPLATES.parent / "spaces/reconstruction",
    }
    commits = {}
    with LoopbackHub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setenv("HF_TOKEN", TOKEN)
        for (kind, repo_id), path in sources.items():
            staged = stage(kind, path, repo_id, TEMPLATES, folder / "staged" / repo_id)
            assert publish(staged, yes=False, endpoint=hub.endpoint) is None
            assert (staged.repo_type, repo_id) not in hub.repos, "uploads only when asked to"
            commits[repo_id] = publish(staged, yes=True, endpoint=hub.endpoint).commit
        record = json.loads(
            (folder / "staged/selmem/mamba-tiny-probe/verification.json").read_text()
        )
        yield Published(hub, release, commits, record, folder)


def recorded_ids(published):
    return [row["reconstruction_ids"] for row in published.record["sentences"]]


# the first block of the design, on the tiny models, with values in place of the dots
FIRST_BLOCK = """
import selmem                                             # registers the classes, so no remote code runs
from transformers import AutoModel, AutoTokenizer
probe     = AutoModel.from_pretrained("selmem/mamba-tiny-probe")
encoder   = selmem.load_encoder("selmem/mamba-tiny")
tokenizer = AutoTokenizer.from_pretrained("selmem/mamba-tiny-probe")   # left padding, pad = eos, in its own config
state     = selmem.read_state(encoder, **tokenizer(texts, padding=True, return_tensors="pt"))
ids       = probe.reconstruct(state, max_length=256)               # = probe.generate(state=state, ...), greedy

load_dataset("selmem/omissions", "words")                  # also "tokens", "chunks", "reconstructions", "omission"
evaluate.load("selmem/omission_rate").compute(predictions=texts, references=texts, tags=tags)
"""  # noqa: E501, as it stands in the design

WITH_SELMEM = f"""
import evaluate, sys
from datasets import load_dataset
texts, tags = ["The old bridge was", "She bought two red apples and"], [["a"] * 4, ["b"] * 6]
{FIRST_BLOCK}
from selmem.hub import verify
assert type(probe).__module__ == "selmem.probe.modeling_mamba_probe"
assert not [name for name in sys.modules if name.startswith("transformers_modules")]
import json, torch
record = json.load(open(RECORD))
sentences = torch.tensor([row["token_ids"] for row in record["sentences"]])
state = selmem.read_state(encoder, sentences)
generated = probe.generate(state=state, max_length=8)
metric = evaluate.load("selmem/omission_rate")
exec(README_EXAMPLE)
configs = ["chunks", "reconstructions", "tokens", "words", "omission"]
split = "mamba_tiny_probe"
found = dict(
    ids=probe.reconstruct(state, 8).tolist(),
    generated=generated.tolist(),
    rows={{name: load_dataset("selmem/omissions", name, split=split).num_rows for name in configs}},
    streamed={{
        name: len(list(load_dataset("selmem/omissions", name, split=split, streaming=True)))
        for name in configs
    }},
    from_tables=[results["omission_rate"], results["n_words"], results["n_documents"]],
    texts=load_dataset("selmem/omissions", "chunks", split=split)["text"][:],
    verified={{name: verify(f"selmem/{{name}}").kind for name in REPOSITORIES}},
)
"""

WITHOUT_SELMEM = """
import sys, torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, MambaForCausalLM
try:
    AutoModel.from_pretrained("selmem/mamba-tiny-probe")
except ValueError as error:
    refusal = str(error)
assert not [name for name in sys.modules if name.startswith("transformers_modules.selmem")]
pinned = dict(trust_remote_code=True, revision=COMMIT)
probe = AutoModel.from_pretrained("selmem/mamba-tiny-probe", **pinned)
tokenizer = AutoTokenizer.from_pretrained("selmem/mamba-tiny-probe", **pinned)
encoder = AutoModelForCausalLM.from_pretrained("selmem/mamba-tiny")
assert type(encoder) is MambaForCausalLM
cache = encoder(torch.tensor(IDS), use_cache=True).cache_params
texts = ["The old bridge was", "She bought two red apples and"]
batch = tokenizer(texts, padding=True, return_tensors="pt")
found = dict(
    refusal=refusal,
    module=type(probe).__module__,
    ids=probe.reconstruct(cache, 8).tolist(),
    left_padded=batch["attention_mask"][0, 0].item() == 0,
    imported=sorted(name for name in sys.modules if name.split(".")[0] == "selmem"),
)
"""

METRIC_ALONE = """
import evaluate
tags = [["name", "verb", "name"]]
words = dict(predictions=[["Kim", "met", "them"]], references=[["Kim", "met", "Lee"]], tags=tags)
by_id = evaluate.load("selmem/omission_rate").compute(**words)
by_path = evaluate.load(PATH).compute(**words)
rates = {tag: row["omission_rate"] for tag, row in by_id["by_tag"].items()}
found = dict(same=by_id == by_path, rates=rates)
"""


PINNED = """
import json, selmem, torch
from datasets import load_dataset
from transformers import AutoModel
probe = AutoModel.from_pretrained("selmem/mamba-tiny-probe", revision=COMMIT)
encoder = selmem.load_encoder("selmem/mamba-tiny")
sentences = [row["token_ids"] for row in json.load(open(RECORD))["sentences"]]
assert load_dataset("selmem/omissions", "words", split="mamba_tiny_probe").num_rows
found = probe.reconstruct(selmem.read_state(encoder, torch.tensor(sentences)), 8).tolist()
"""


def with_values(code, **values):
    """Put assignments of plain values before the code."""
    return "\n".join(f"{name} = {value!r}" for name, value in values.items()) + code


@pytest.mark.slow
def test_everything_published_is_used_by_its_id_with_and_without_selmem_and_then_offline(published):
    hub, home = published.hub, published.home
    ids = [row["token_ids"] for row in published.record["sentences"]]
    record = str(home / "staged/selmem/mamba-tiny-probe/verification.json")
    with_selmem = with_values(
        WITH_SELMEM, REPOSITORIES=list(KINDS), RECORD=record, README_EXAMPLE=readme_example()
    )
    without = with_values(
        WITHOUT_SELMEM, IDS=ids, COMMIT=published.commits["selmem/mamba-tiny-probe"]
    )
    metric = with_values(METRIC_ALONE, PATH=str(METRIC))
    users = {
        "with selmem": (with_selmem, {}),
        "without selmem": (without, {"blocked": ["selmem"]}),
        "metric alone": (metric, {"blocked": ["selmem", "torch", "transformers", "gradio"]}),
    }
    online = {
        name: start(code, hub.environment(home / name, token=None), **options)
        for name, (code, options) in users.items()
    }
    found = {name: result(process) for name, process in online.items()}
    assert_used(found, published)
    before = len(hub.requests)
    offline = {
        name: start(code, hub.environment(home / name, token=None, offline=True), **options)
        for name, (code, options) in users.items()
        if name != "with selmem"
    }
    offline["pinned"] = start(
        with_values(PINNED, COMMIT=published.commits["selmem/mamba-tiny-probe"], RECORD=record),
        hub.environment(home / "with selmem", token=None, offline=True),
    )
    found_offline = {name: result(process) for name, process in offline.items()}
    assert found_offline.pop("pinned") == recorded_ids(published)
    assert found_offline == {name: found[name] for name in found_offline}
    assert hub.requests[before:] == [], "offline means that nobody is asked"


def readme_example():
    """Return the metric README's code on the published tables, for a source that is in ours."""
    parts = (METRIC / "README.md").read_text().split("```python\n")
    code = next(part.split("```")[0] for part in parts if "from datasets import" in part)
    assert '"selmem_sample", 16' in code
    return code.replace('"selmem_sample", 16', '"gsm8k", 4')


def assert_used(found, published):
    ids = recorded_ids(published)
    user = found["with selmem"]
    assert user["ids"] == ids
    assert user["generated"] == ids
    rows = {"chunks": 8, "reconstructions": 8, "tokens": 16, "words": 16, "omission": 24}
    assert user["rows"] == user["streamed"] == rows
    assert user["from_tables"] == [0.0, 8, 2], "as in the table words"
    assert user["texts"] == ["plainone plaintwo"] * 4 + [None] * 4
    assert user["verified"] == KINDS
    stranger = found["without selmem"]
    assert "trust_remote_code=True" in stranger["refusal"]
    assert stranger["module"].startswith("transformers_modules.selmem.mamba")
    assert stranger["ids"] == ids
    assert stranger["left_padded"]
    assert stranger["imported"] == []
    assert found["metric alone"] == {"same": True, "rates": {"name": 0.5, "verb": 0.0}}


def test_a_repository_has_one_commit_and_the_versions_tag(published):
    for (kind, repo_id), repo in published.hub.repos.items():
        assert len(repo.commits) == 2, repo_id
        assert list(repo.tags.values()) == [published.commits[repo_id]], (kind, repo_id)


def test_nothing_published_holds_the_token_a_withheld_text_or_a_path(published):
    for repo in published.hub.repos.values():
        for path, blob in repo.head.files.items():
            for secret in (TOKEN, SECRET, str(published.home), str(Path.home()) + "/"):
                assert secret.encode() not in blob.data, (repo.repo_id, path)


def test_the_hubs_card_classes_accept_every_card(published, monkeypatch):
    session = get_session()

    class LocalSession:
        """Old versions of the library ask the Hub itself, whatever the endpoint."""

        def post(self, url, **options):
            return session.post(published.hub.endpoint + urlsplit(url).path, **options)

    monkeypatch.setattr(repocard, "get_session", LocalSession)
    classes = {"model": ModelCard, "dataset": DatasetCard, "space": SpaceCard}
    for (kind, _), repo in published.hub.repos.items():
        classes[kind](repo.head.files["README.md"].data.decode()).validate()
    card = ModelCard("---\nlicense: mine\n---\n")
    with pytest.raises(ValueError, match="license is 'mine'"):
        card.validate()


def test_a_wrong_revision_or_repository_is_a_clear_error(published, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(published.home / "cache"))
    endpoint = published.hub.endpoint
    with pytest.raises(InputError, match="mamba-tiny-probe has no such revision"):
        verify("selmem/mamba-tiny-probe", revision="v9.9", endpoint=endpoint)
    with pytest.raises(InputError, match="selmem/none is not on the Hub"):
        verify("selmem/none", endpoint=endpoint)


@pytest.mark.parametrize("damage", [lambda data: data[:-64], lambda data: data[:-1] + b"\x7f"])
def test_a_file_that_the_hub_serves_damaged_is_named(published, monkeypatch, tmp_path, damage):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    repo = published.hub.repo("selmem/mamba-tiny-probe")
    head = repo.head
    repo.replace("model.safetensors", damage(head.files["model.safetensors"].data))
    try:
        with pytest.raises(InputError, match=r"model\.safetensors \(\d+ bytes\) differs"):
            verify("selmem/mamba-tiny-probe", endpoint=published.hub.endpoint)
    finally:
        repo.refs["main"] = head.oid
    verify(
        "selmem/mamba-tiny-probe",
        encoder=published.release.encoder,
        endpoint=published.hub.endpoint,
    )


def test_a_busy_hub_is_a_clear_error_for_verify(published, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    published.hub.fail("GET /api/models/selmem/mamba-tiny-probe", status=503)
    with pytest.raises(InputError, match="the Hub answered 503"):
        verify("selmem/mamba-tiny-probe", endpoint=published.hub.endpoint)
