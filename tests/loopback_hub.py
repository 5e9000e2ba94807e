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
from dataclasses import dataclass
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from loopback_store import LFS_ENDINGS, ConflictError, Repo

TOKEN = "hf_loopbackOnlyToken"
PREFIX = {"": "model", "datasets/": "dataset", "spaces/": "space"}
DATE = "2026-01-01T00:00:00.000Z"

_ID = r"(?P<repo_id>[\w.-]+/[\w.-]+?)"
_API = rf"/api/(?P<kind>model|dataset|space)s/{_ID}"
_REVISION = r"(?P<revision>[^/]+)"
ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create_repo"),
    ("POST", r"/api/validate-yaml", "validate_yaml"),
    ("GET", r"/api/(?:models|datasets|spaces)", "list_repos"),
    ("GET", rf"{_API}(?:/revision/{_REVISION})?", "info"),
    ("GET", rf"{_API}/refs", "refs"),
    ("GET", rf"{_API}/tree/{_REVISION}(?:/(?P<path>.*))?", "tree"),
    ("POST", rf"{_API}/paths-info/{_REVISION}", "paths_info"),
    ("POST", rf"{_API}/preupload/{_REVISION}", "preupload"),
    ("POST", rf"{_API}/commit/{_REVISION}", "commit"),
    ("POST", rf"{_API}/tag/{_REVISION}", "tag"),
    ("POST", rf"/(?P<prefix>datasets/|spaces/|){_ID}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "lfs_put"),
    ("POST", r"/lfs/(?P<oid>[0-9a-f]{64})/verify", "lfs_verify"),
    (
        "GET",
        rf"/(?P<prefix>datasets/|spaces/|){_ID}/resolve/{_REVISION}/(?P<path>.+)",
        "resolve",
    ),
]
WRITES = {"create_repo", "preupload", "commit", "tag", "lfs_batch"}


@dataclass
class Fault:
    """What befalls the next `times` requests whose "METHOD /path" matches `pattern`.

    `status` answers with that status instead; `cut_request` and `cut_response` drop the connection
    after that many bytes of the body, before or after the request took effect.
    """

    pattern: str
    times: int = 1
    status: int | None = None
    cut_request: int | None = None
    cut_response: int | None = None


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


class DroppedError(Exception):
    """The connection is to be cut without an answer."""


class Handler(BaseHTTPRequestHandler):
    """Finds the route, applies faults and credentials, and answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: LoopbackHub

    def log_message(self, *_):
        """Write no log: `LoopbackHub.requests` has it."""

    def handle_request(self):
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        method = "GET" if self.command == "HEAD" else self.command
        fault = self.server.next_fault(f"{self.command} {url.path}")
        try:
            self.cut_response = fault.cut_response if fault else None
            self.body = self.read_body(fault.cut_request if fault else None)
            if fault and fault.status:
                return self.error(fault.status, "", "a fault on request")
            for route_method, pattern, name in ROUTES:
                match = re.fullmatch(pattern, url.path)
                if route_method == method and match:
                    return self.dispatch(name, match.groupdict())
            return self.error(404, "", f"no route for {method} {url.path}")
        except DroppedError:
            self.close_connection = True
            self.connection.close()

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def dispatch(self, name, found):
        if name in WRITES and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.error(401, "", "Invalid username or password.")
        found = {key: unquote(value) for key, value in found.items() if value is not None}
        if "prefix" in found:
            found["kind"] = PREFIX[found.pop("prefix")]
        if "repo_id" in found:
            repo = self.server.repos.get((found.pop("kind"), found.pop("repo_id")))
            if repo is None:
                return self.error(404, "RepoNotFound", "Repository not found")
            found["repo"] = repo
        if "revision" in found and name != "info":
            found["commit"] = found["repo"].resolve(found["revision"])
            if found["commit"] is None:
                return self.error(404, "RevisionNotFound", f"Invalid rev id: {found['revision']}")
        try:
            return getattr(self, f"on_{name}")(**found)
        except ConflictError as error:
            return self.error(412 if name == "commit" else 409, "", str(error))

    def read_body(self, cut):
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self.read_chunk, b""))
        else:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length if cut is None else min(cut, length))
        if cut is not None:
            raise DroppedError
        return body

    def read_chunk(self):
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def answer(self, data, status=200, **headers):
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        headers.setdefault("Content_Type", "application/json")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: self.cut_response])
        self.wfile.flush()
        if self.cut_response is not None:
            raise DroppedError

    def error(self, status, code, message):
        self.answer({"error": message}, status, X_Error_Code=code, X_Error_Message=message)

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
        front = json.loads(self.body)["content"].split("---")
        try:
            valid = len(front) > 2 and isinstance(yaml.safe_load(front[1]), dict)
            errors = [] if valid else [{"message": "the card has no metadata"}]
        except yaml.YAMLError as error:
            errors = [{"message": str(error)}]
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
