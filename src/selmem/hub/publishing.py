"""Publication of a staged folder: all files in one commit, then the version's tag.

`HfApi.upload_folder` may split a folder into several commits (huggingface_hub 2), which would show
readers a half-published repository; `create_commit` does not.
"""

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from selmem.errors import InputError
from selmem.hub.checksums import SUMS_NAME, folder_files
from selmem.hub.client_errors import clear_errors
from selmem.hub.staging import Staged

# files that the Hub itself puts into a new repository
INITIAL_FILES = {".gitattributes", "README.md"}


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Where a published folder is: the repository's address, the commit and the tag."""

    url: str
    commit: str
    tag: str


def publish(staged: Staged, *, yes: bool, endpoint: str | None = None) -> Publication | None:
    """Upload what was staged if `yes`; otherwise do nothing and return None.

    Args:
        staged: from `stage`.
        yes: the user's consent.
        endpoint: address of the Hub, if not the usual one.

    Raises:
        InputError: see `upload`.
    """
    if not yes:
        return None
    return upload(
        staged.folder, staged.repo_type, staged.repo_id, tag=staged.tag, endpoint=endpoint
    )


def upload(
    folder: Path, repo_type: str, repo_id: str, *, tag: str, endpoint: str | None = None
) -> Publication:
    """Make the repository hold exactly the files of `folder`, in one commit, and tag it.

    An interrupted call leaves the repository as it was, or whole and without its tag; repeating it
    finishes the work.

    Raises:
        InputError: no or a wrong token, a repository that was not made by selmem, a version that
            is already published with other files, a server that does not answer.
    """
    api = HfApi(endpoint=endpoint)
    with clear_errors(repo_id):
        api.whoami()
        sdk = "gradio" if repo_type == "space" else None
        url = api.create_repo(repo_id, repo_type=repo_type, exist_ok=True, space_sdk=sdk)
        commit = _already_published(api, folder, repo_type, repo_id, tag)
        if not commit:
            commit = _commit(api, folder, repo_type, repo_id, tag)
            api.create_tag(repo_id, tag=tag, revision=commit, repo_type=repo_type)
    return Publication(url=str(url), commit=commit, tag=tag)


def _commit(api: HfApi, folder: Path, repo_type: str, repo_id: str, tag: str) -> str:
    head = api.repo_info(repo_id, repo_type=repo_type)
    present = set(api.list_repo_files(repo_id, repo_type=repo_type, revision=head.sha))
    _refuse_foreign(repo_id, present)
    with warnings.catch_warnings():
        # a Space's aggregate tables are Parquet files on purpose
        warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
        info = api.create_commit(
            repo_id,
            _operations(folder, present),
            commit_message=f"selmem {tag}",
            repo_type=repo_type,
            parent_commit=head.sha,
        )
    return str(info.oid)


def _refuse_foreign(repo_id: str, present: set[str]) -> None:
    foreign = sorted(present - INITIAL_FILES)
    if foreign and SUMS_NAME not in present:
        raise InputError(
            f"{repo_id} exists and holds files that selmem did not publish "
            f"({', '.join(foreign[:5])}); choose another id, or empty it first"
        )


def _already_published(api: HfApi, folder: Path, repo_type: str, repo_id: str, tag: str) -> str:
    """Return the commit that `tag` names if it holds the files of `folder`; "" without that tag."""
    refs = api.list_repo_refs(repo_id, repo_type=repo_type)
    commit = next((ref.target_commit for ref in refs.tags if ref.name == tag), "")
    if not commit:
        return ""
    with tempfile.TemporaryDirectory() as cache:
        path = api.hf_hub_download(
            repo_id, SUMS_NAME, repo_type=repo_type, revision=commit, cache_dir=cache
        )
        if Path(path).read_bytes() != (folder / SUMS_NAME).read_bytes():
            raise InputError(
                f"{tag} of {repo_id} is already published with other files; raise the version"
            )
    return commit


def _operations(
    folder: Path, present: set[str]
) -> list[CommitOperationAdd | CommitOperationDelete]:
    staged = folder_files(folder)
    stale = sorted(present - set(staged) - {".gitattributes"})
    return [
        *(CommitOperationAdd(name, folder / name) for name in staged),
        *(CommitOperationDelete(name) for name in stale),
    ]
