"""The part of the loopback Hub that knows HTTP: routes, credentials, faults, bodies."""

import json
import re
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlsplit

from loopback_store import ConflictError

TOKEN = "hf_loopbackOnlyToken"
PREFIX = {"": "model", "datasets/": "dataset", "spaces/": "space"}

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


class DroppedError(Exception):
    """The connection is to be cut without an answer."""


class RoutingHandler(BaseHTTPRequestHandler):
    """Finds the route, applies faults and credentials, and answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

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
