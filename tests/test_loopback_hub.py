"""The server that the Hub tests rest on behaves as the Hub does where selmem relies on it."""

from pathlib import Path

import huggingface_hub.utils._http as hub_http
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from loopback_hub import TOKEN, LoopbackHub

REPO = "selmem/thing"
WEIGHTS = bytes(range(256)) * 200


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hub_http.time, "sleep", lambda _: None)
    with LoopbackHub() as server:
        yield server


@pytest.fixture
def api(hub):
    return HfApi(endpoint=hub.endpoint, token=TOKEN)


def additions(**files):
    return [CommitOperationAdd(path, data) for path, data in files.items()]


def publish(api, *, repo_type="model", message="first", **files):
    space = {"space_sdk": "gradio"} if repo_type == "space" else {}
    api.create_repo(REPO, repo_type=repo_type, exist_ok=True, **space)
    files = files or {"config.json": b"{}", "model.safetensors": WEIGHTS}
    return api.create_commit(
        REPO, additions(**files), commit_message=message, repo_type=repo_type
    ).oid


@pytest.mark.parametrize("repo_type", ["model", "dataset", "space"])
def test_what_is_committed_is_listed_and_downloaded(api, tmp_path, repo_type):
    oid = publish(api, repo_type=repo_type)
    info = api.repo_info(REPO, repo_type=repo_type, revision=oid)
    assert info.sha == oid
    assert sorted(file.rfilename for file in info.siblings) == [
        ".gitattributes",
        "config.json",
        "model.safetensors",
    ]
    tree = {entry.path: entry for entry in api.list_repo_tree(REPO, repo_type=repo_type)}
    assert tree["model.safetensors"].lfs.size == len(WEIGHTS)
    assert tree["config.json"].lfs is None
    path = api.hf_hub_download(REPO, "model.safetensors", repo_type=repo_type, cache_dir=tmp_path)
    assert Path(path).read_bytes() == WEIGHTS


def test_folders_are_listed_level_by_level_or_whole(api):
    publish(api, **{"data/a/x.json": b"1", "data/y.json": b"2"})
    paths = lambda **where: [entry.path for entry in api.list_repo_tree(REPO, **where)]  # noqa: E731
    assert paths() == ["data", ".gitattributes"]
    assert paths(path_in_repo="data") == ["data/a", "data/y.json"]
    assert "data/a/x.json" in paths(recursive=True)
    assert [info.path for info in api.get_paths_info(REPO, ["data", "data/y.json", "no"])] == [
        "data/y.json",
        "data",
    ]
    with pytest.raises(EntryNotFoundError):
        paths(path_in_repo="nowhere")


def test_a_tag_keeps_pointing_at_its_commit(api, tmp_path):
    first = publish(api, **{"a.json": b"1"})
    api.create_tag(REPO, tag="v1")
    second = publish(api, message="second", **{"a.json": b"2"})
    assert first != second
    path = api.hf_hub_download(REPO, "a.json", revision="v1", cache_dir=tmp_path)
    assert Path(path).read_text() == "1"
    refs = api.list_repo_refs(REPO)
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [("v1", first)]
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_tag(REPO, tag="v1")


def test_unknown_repositories_revisions_and_files_are_told_apart(api, tmp_path):
    publish(api)
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("selmem/none")
    with pytest.raises(RevisionNotFoundError):
        api.model_info(REPO, revision="v9")
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(REPO, "config.json", revision="v9", cache_dir=tmp_path)
    with pytest.raises(EntryNotFoundError):
        api.hf_hub_download(REPO, "none.json", cache_dir=tmp_path)


def test_one_commit_adds_and_deletes_together(api, hub):
    publish(api, **{"old.json": b"1", "kept.json": b"1"})
    operations = [*additions(**{"new.json": b"2"}), CommitOperationDelete("old.json")]
    api.create_commit(REPO, operations, commit_message="swap")
    assert sorted(hub.repo(REPO).head.files) == [".gitattributes", "kept.json", "new.json"]


def test_a_commit_on_a_stale_parent_is_refused(api, hub):
    stale = publish(api, **{"a.json": b"1"})
    publish(api, message="second", **{"a.json": b"2"})
    with pytest.raises(HfHubHTTPError, match="412"):
        api.create_commit(
            REPO, additions(**{"a.json": b"3"}), commit_message="third", parent_commit=stale
        )
    assert hub.repo(REPO).head.files["a.json"].data == b"2"


def test_writing_needs_the_token_and_reading_does_not(api, hub, tmp_path):
    publish(api)
    stranger = HfApi(endpoint=hub.endpoint, token=False)
    stranger.hf_hub_download(REPO, "config.json", cache_dir=tmp_path)
    with pytest.raises(HfHubHTTPError, match="401"):
        stranger.create_repo("selmem/other")
    with pytest.raises(HfHubHTTPError, match="401"):
        stranger.create_commit(REPO, additions(**{"a.json": b"1"}), commit_message="no")
    with pytest.raises(HfHubHTTPError, match=r"(?i)invalid"):
        HfApi(endpoint=hub.endpoint, token="hf_wrong").whoami()


def test_a_file_can_be_read_in_ranges(api):
    publish(api)
    url = f"{api.endpoint}/{REPO}/resolve/main/model.safetensors"
    for wanted, expected in [("0-9", WEIGHTS[:10]), ("51000-", WEIGHTS[51000:])]:
        response = hub_http.get_session().get(url, headers={"Range": f"bytes={wanted}"})
        assert response.status_code == 206
        assert response.content == expected
    assert hub_http.get_session().get(url, headers={"Range": "bytes=-5"}).content == WEIGHTS[-5:]


def test_a_busy_server_answers_after_the_asked_number_of_refusals(api, hub):
    hub.fail("PUT /lfs", times=2, status=503)
    publish(api)
    assert sum(request.startswith("PUT /lfs") for request in hub.requests) == 3


def test_a_dropped_upload_leaves_no_commit_and_its_repetition_finishes(api, hub):
    hub.fail("PUT /lfs", times=6, cut_request=1000)
    with pytest.raises(RuntimeError, match=r"model\.safetensors"):
        publish(api)
    assert sorted(hub.repo(REPO).head.files) == [".gitattributes"]
    publish(api)
    assert hub.repo(REPO).head.files["model.safetensors"].data == WEIGHTS


def test_a_dropped_download_is_resumed_by_range(api, hub, tmp_path):
    publish(api)
    hub.fail(r"GET /.*model\.safetensors", cut_response=1000)
    path = api.hf_hub_download(REPO, "model.safetensors", cache_dir=tmp_path)
    assert Path(path).read_bytes() == WEIGHTS
    gets = [request for request in hub.requests if request.startswith("GET /selmem/thing/resolve")]
    assert len(gets) == 2


def test_replaced_bytes_are_served_from_the_next_commit_on(api, hub, tmp_path):
    publish(api)
    hub.repo(REPO).replace("model.safetensors", WEIGHTS[:-1])
    path = api.hf_hub_download(REPO, "model.safetensors", cache_dir=tmp_path)
    assert Path(path).read_bytes() == WEIGHTS[:-1]
