"""Uploads against the loopback Hub: one commit, one tag, and every fault ends in one clear line."""

from pathlib import Path

import huggingface_hub.utils._http as hub_http
import pytest
from huggingface_hub import HfApi, constants

from loopback_hub import TOKEN, LoopbackHub
from sample_tables import write_measured
from selmem.cli import main
from selmem.errors import InputError
from selmem.hub.checksums import check_sums, write_sums
from selmem.hub.publishing import upload

REPO = "selmem/thing"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(hub_http.time, "sleep", lambda _: None)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with LoopbackHub() as server:
        yield server


@pytest.fixture
def folder(tmp_path):
    return staged(tmp_path / "staged", weights=b"\x01" * 5000)


def staged(path, *, weights, **extra):
    path.mkdir(parents=True, exist_ok=True)
    files = {
        "README.md": b"---\nlicense: apache-2.0\n---\n# Thing\n",
        "config.json": b"{}",
        "model.safetensors": weights,
        **extra,
    }
    for name, data in files.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(data)
    write_sums(path)
    return path


def published_files(hub, kind="model"):
    return {name: blob.data for name, blob in hub.repo(REPO, kind).head.files.items()}


def assert_published(hub, folder):
    files = published_files(hub)
    files.pop(".gitattributes")
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert hub.repo(REPO).tags == {"v1": hub.repo(REPO).head.oid}


def publish(hub, folder, tag="v1", kind="model"):
    return upload(folder, kind, REPO, tag=tag, endpoint=hub.endpoint)


@pytest.mark.parametrize("kind", ["model", "dataset", "space"])
def test_a_folder_becomes_one_commit_with_a_tag(hub, folder, kind):
    publication = publish(hub, folder, kind=kind)
    repo = hub.repo(REPO, kind)
    assert len(repo.commits) == 2, "the repository's first commit and ours"
    assert publication.commit == repo.head.oid == repo.tags["v1"]
    assert publication.url.endswith(REPO)


def test_publishing_the_same_again_changes_nothing(hub, folder):
    first = publish(hub, folder)
    assert publish(hub, folder) == first
    assert len(hub.repo(REPO).commits) == 2


def test_a_new_version_replaces_files_and_removes_stale_ones(hub, tmp_path):
    publish(hub, staged(tmp_path / "old", weights=b"1", **{"data/old.json": b"{}"}))
    publish(hub, staged(tmp_path / "new", weights=b"2"), tag="v2")
    assert "data/old.json" not in published_files(hub)
    assert published_files(hub)["model.safetensors"] == b"2"
    old = hub.repo(REPO).resolve("v1").files
    assert old["model.safetensors"].data == b"1"


def test_a_published_version_is_never_overwritten(hub, tmp_path):
    publish(hub, staged(tmp_path / "old", weights=b"1"))
    with pytest.raises(InputError, match="v1 of selmem/thing is already published with other"):
        publish(hub, staged(tmp_path / "new", weights=b"2"))
    assert published_files(hub)["model.safetensors"] == b"1"


def test_a_repository_of_somebody_else_is_left_alone(hub, folder):
    api = HfApi(endpoint=hub.endpoint)
    api.create_repo(REPO)
    api.upload_file(path_or_fileobj=b"theirs", path_in_repo="pytorch_model.txt", repo_id=REPO)
    with pytest.raises(InputError, match=r"holds files that selmem did not publish \(pytorch_m"):
        publish(hub, folder)
    assert "model.safetensors" not in published_files(hub)


def test_an_empty_repository_that_exists_is_used(hub, folder):
    HfApi(endpoint=hub.endpoint).create_repo(REPO)
    publish(hub, folder)
    assert_published(hub, folder)


FAULTS = {
    "the weights are cut half-way": ("PUT /lfs", {"times": 6, "cut_request": 2500}),
    "the commit request is lost": ("POST .*/commit/", {"cut_request": 10}),
    "the answer to the commit is lost": ("POST .*/commit/", {"cut_response": 0}),
    "the tag request is refused": ("POST .*/tag/", {"status": 500}),
    "the server is busy": ("POST /api/repos/create", {"status": 503}),
    "the server stays busy": ("POST .*/preupload", {"times": 6, "status": 503}),
    "the card check fails": ("POST /api/validate-yaml", {"status": 502}),
}


@pytest.mark.parametrize(("pattern", "fault"), FAULTS.values(), ids=list(FAULTS))
def test_an_interrupted_upload_shows_nothing_half_done_and_its_repetition_finishes(
    hub, folder, pattern, fault
):
    hub.fail(pattern, **fault)
    with pytest.raises(InputError, match="run the same command again"):
        publish(hub, folder)
    if ("model", REPO) in hub.repos:
        assert len(published_files(hub)) in (1, 5), "all of the version's files or none"
    publish(hub, folder)
    assert_published(hub, folder)
    assert len(hub.repo(REPO).commits) == 2


def test_a_short_outage_during_the_upload_is_waited_out(hub, folder):
    hub.fail("PUT /lfs", times=2, status=503)
    publish(hub, folder)
    assert_published(hub, folder)


@pytest.mark.parametrize(
    ("token", "message"), [("", "no Hugging Face token"), ("hf_wrong", "refused the token")]
)
def test_without_a_valid_token_nothing_is_sent(hub, folder, monkeypatch, token, message):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=message):
        publish(hub, folder)
    assert not hub.repos


def test_errors_never_show_the_token(hub, folder):
    hub.fail("POST", times=100, status=403)
    with pytest.raises(InputError, match="may not write here") as caught:
        publish(hub, folder)
    assert TOKEN not in str(caught.value)


def test_an_unreachable_hub_and_a_malformed_id_are_clear_errors(hub, folder):
    with pytest.raises(InputError, match="is no repository id"):
        upload(folder, "model", "a/b/c", tag="v1", endpoint=hub.endpoint)
    with pytest.raises(InputError, match="the connection failed"):
        upload(folder, "model", REPO, tag="v1", endpoint="http://127.0.0.1:1")


def test_a_card_that_the_hub_refuses_is_not_published(hub, folder):
    (folder / "README.md").write_text("no metadata")
    write_sums(folder)
    with pytest.raises(InputError, match="refused the card: Invalid metadata"):
        publish(hub, folder)
    assert list(published_files(hub)) == [".gitattributes"]


def test_checksums_name_the_altered_absent_or_foreign_file(folder):
    assert check_sums(folder) == 3
    (folder / "model.safetensors").write_bytes(b"\x01" * 4999)
    with pytest.raises(InputError, match=r"model\.safetensors \(4999 bytes\) differs"):
        check_sums(folder)
    (folder / "model.safetensors").write_bytes(b"\x01" * 4999 + b"\x03")
    with pytest.raises(InputError, match=r"model\.safetensors \(5000 bytes\) differs"):
        check_sums(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"model\.safetensors is listed in SHA256SUMS and absent"):
        check_sums(folder)
    (folder / "model.safetensors").write_bytes(b"\x01" * 5000)
    (folder / "extra.py").write_text("")
    with pytest.raises(InputError, match=r"extra\.py is not listed"):
        check_sums(folder)
    (folder / "SHA256SUMS").write_text("what\n")
    with pytest.raises(InputError, match="malformed at 'what'"):
        check_sums(folder)


@pytest.fixture
def command(hub, tmp_path, monkeypatch, capsys):
    """Run `selmem publish dataset` against the loopback Hub: exit status, output, errors."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    measured = write_measured(tmp_path / "measured")
    templates = str(Path(__file__).parents[1] / "hub_cards")

    def run(*options):
        arguments = ["publish", "dataset", str(measured), "selmem/omissions", *options]
        status = main([*arguments, "--templates", templates])
        captured = capsys.readouterr()
        assert TOKEN not in captured.out + captured.err
        return status, captured.out, captured.err

    return run


def test_the_command_uploads_only_with_yes(hub, command):
    status, output, _ = command()
    assert status == 0
    assert "data/omission/mamba_tiny_probe.parquet" in output
    assert "nothing was uploaded" in output
    assert hub.requests == []
    status, output, _ = command("--yes")
    assert status == 0
    head = hub.repo("selmem/omissions", "dataset").head
    assert f"published {hub.endpoint}/datasets/selmem/omissions as v" in output
    assert head.oid in output


def test_the_command_ends_with_2_and_one_line_where_the_hub_refuses(hub, command):
    hub.fail("POST /api/repos/create", status=403)
    status, _, errors = command("--yes")
    assert status == 2
    assert errors.splitlines()[-1] == (
        "selmem publish: selmem/omissions: the token may not write here; use one with write access "
        "to this namespace"
    )
