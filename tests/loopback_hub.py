"""A small Hub on 127.0.0.1 for huggingface_hub, transformers, datasets and evaluate, unmodified.

    with LoopbackHub() as hub:
        subprocess.run([...], env=hub.environment(home))

Commits, tags, regular and LFS uploads, resolve with ranges, and faults on request. Repositories
are public to read; writing needs the token. Nothing is kept on disk.
"""

import json
import os
import re
import threading
from hashlib import sha256
from http.server import ThreadingHTTPServer
from urllib.parse import parse_qs

import yaml

from loopback_http import PREFIX, TOKEN, Fault, RoutingHandler
from loopback_store import LFS_ENDINGS, Repo

DATE = "2026-01-01T00:00:00.000Z"
# what the Hub's own check of a card refuses, as far as our cards come near it
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")
LICENCES = ("apache-2.0", "mit", "other")
RELATIONS = ("adapter", "merge", "quantized", "finetune")


class LoopbackHub(ThreadingHTTPServer):
    """The server; a context manager that listens between enter and exit."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.repos = {}  # (kind, repo_id) -> Repo
        self.lfs_objects = {}  # sha256 -> bytes
        self.faults = []
        self.requests = []  # "METHOD /path", in order of arrival
        self._lock = threading.Lock()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Keep quiet about connections that a fault or a client dropped."""

    def repo(self, repo_id, kind="model"):
        return self.repos[kind, repo_id]

    def fail(self, pattern, **fault):
        self.faults.append(Fault(pattern, **fault))

    def next_fault(self, request):
        with self._lock:
            self.requests.append(request)
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None

    def environment(self, home, *, token=TOKEN, offline=False):
        """Return the environment of a child process that knows no Hub but this one."""
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith("HF_")
        }
        own = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0",
            "OMP_NUM_THREADS": "1",
        }
        credentials = {"HF_TOKEN": token} if token else {}
        # evaluate has a switch of its own
        switches = {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"} if offline else {}
        return {**inherited, **own, **credentials, **switches}


class Handler(RoutingHandler):
    """The Hub's answers."""

    server: LoopbackHub

    def on_whoami(self):
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.error(401, "", "Invalid username or password.")
        return self.answer({"type": "user", "name": "tester", "orgs": [{"name": "selmem"}]})

    def on_create_repo(self):
        wanted = json.loads(self.body)
        repo_id = f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
        key = (wanted.get("type") or "model", repo_id)
        exists = key in self.server.repos
        if not exists:
            self.server.repos[key] = Repo(*key)
        prefix = next(prefix for prefix, kind in PREFIX.items() if kind == key[0])
        url = f"{self.server.endpoint}/{prefix}{repo_id}"
        self.answer({"url": url, "name": repo_id}, 409 if exists else 200)

    def on_validate_yaml(self):
        request = json.loads(self.body)
        errors = [{"message": text} for text in card_errors(request["content"])]
        self.answer({"errors": errors, "warnings": []}, 400 if errors else 200)

    def on_list_repos(self):
        self.answer([])

    def on_info(self, repo, revision="main"):
        commit = repo.resolve(revision)
        if commit is None:
            return self.error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.answer(
            {
                "_id": repo.repo_id,
                "id": repo.repo_id,
                "modelId": repo.repo_id,
                "author": repo.repo_id.split("/")[0],
                "sha": commit.oid,
                "lastModified": DATE,
                "createdAt": DATE,
                "private": False,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [{"rfilename": path} for path in sorted(commit.files)],
            }
        )

    def on_refs(self, repo):
        tags = [
            {"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid}
            for name, oid in repo.tags.items()
        ]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.head.oid}
        self.answer({"branches": [main], "tags": tags, "converts": []})

    def on_tree(self, repo, revision, commit, path=""):  # noqa: ARG002
        inside = f"{path.strip('/')}/" if path else ""
        names = [name for name in sorted(commit.files) if name.startswith(inside)]
        if path and not names:
            return self.error(404, "EntryNotFound", f"{path} does not exist on {revision}")
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        folders = {
            name[: name.index("/", len(inside))] for name in names if "/" in name[len(inside) :]
        }
        files = [name for name in names if recursive or "/" not in name[len(inside) :]]
        entries = [
            {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
            for name in sorted(folders)
        ]
        return self.answer(entries + [_entry(name, commit.files[name]) for name in files])

    def on_paths_info(self, repo, revision, commit):  # noqa: ARG002
        paths = parse_qs(self.body.decode())["paths"]
        folders = {name.rpartition("/")[0] for name in commit.files} - {""}
        self.answer(
            [_entry(path, commit.files[path]) for path in paths if path in commit.files]
            + [
                {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
                for path in paths
                if path in folders
            ]
        )

    def on_preupload(self, repo, revision, commit):  # noqa: ARG002
        self.answer(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(LFS_ENDINGS) else "regular",
                        "shouldIgnore": False,
                        "oid": commit.files[file["path"]].oid
                        if file["path"] in commit.files
                        else None,
                    }
                    for file in json.loads(self.body)["files"]
                ]
            }
        )

    def on_commit(self, repo, revision, commit):  # noqa: ARG002
        oid = repo.commit(self.body.splitlines(), self.server.lfs_objects)
        url = f"{self.server.endpoint}/{repo.repo_id}/commit/{oid}"
        self.answer({"success": True, "commitOid": oid, "commitUrl": url})

    def on_tag(self, repo, revision, commit):  # noqa: ARG002
        repo.tag(json.loads(self.body)["tag"], commit.oid)
        self.answer({})

    def on_lfs_batch(self, repo):  # noqa: ARG002
        objects = json.loads(self.body)["objects"]
        for item in objects:
            if item["oid"] not in self.server.lfs_objects:
                url = f"{self.server.endpoint}/lfs/{item['oid']}"
                item["actions"] = {"upload": {"href": url}, "verify": {"href": f"{url}/verify"}}
        self.answer({"transfer": "basic", "objects": objects})

    def on_lfs_put(self, oid):
        if sha256(self.body).hexdigest() != oid:
            return self.error(400, "", f"the bytes are not those of {oid}")
        self.server.lfs_objects[oid] = self.body
        return self.answer({})

    def on_lfs_verify(self, oid):
        size = len(self.server.lfs_objects.get(oid, b""))
        self.answer({}, 200 if size == json.loads(self.body)["size"] else 404)

    def on_resolve(self, repo, revision, commit, path):  # noqa: ARG002
        blob = commit.files.get(path)
        if blob is None:
            return self.error(404, "EntryNotFound", "Entry not found")
        headers = {
            "X_Repo_Commit": commit.oid,
            "ETag": f'"{blob.oid}"',
            "Accept_Ranges": "bytes",
            "Content_Type": "application/octet-stream",
        }
        if blob.lfs:
            headers |= {"X_Linked_Etag": f'"{blob.oid}"', "X_Linked_Size": str(len(blob.data))}
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range") or "")
        if wanted is None:
            return self.answer(blob.data, **headers)
        start, end = _span(wanted, len(blob.data))
        headers["Content_Range"] = f"bytes {start}-{end - 1}/{len(blob.data)}"
        return self.answer(blob.data[start:end], 206 if start < end else 416, **headers)


def card_errors(content):
    """Return what the Hub would refuse in the metadata of a card."""
    parts = content.split("---")
    try:
        data = yaml.safe_load(parts[1]) if len(parts) > 2 else None
    except yaml.YAMLError as error:
        return [str(error)]
    if not isinstance(data, dict):
        return ["the card has no metadata"]
    allowed = {
        "license": LICENCES,
        "base_model_relation": RELATIONS,
        "colorFrom": COLOURS,
        "colorTo": COLOURS,
    }
    errors = [
        f"{key} is {data[key]!r}, expected one of {values}"
        for key, values in allowed.items()
        if key in data and data[key] not in values
    ]
    if len(data.get("short_description", "")) > 60:
        errors.append("short_description has more than 60 characters")
    return errors


def _entry(path, blob):
    entry = {"type": "file", "path": path, "oid": blob.git_oid, "size": len(blob.data)}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.oid, "size": len(blob.data), "pointerSize": 130}
    return entry


def _span(match, size):
    first, last = match.groups()
    if not first:
        return max(size - int(last), 0), size
    return int(first), min(int(last) + 1 if last else size, size)
