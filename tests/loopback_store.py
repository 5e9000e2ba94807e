"""What the loopback Hub keeps: repositories of commits, each a whole tree of blobs."""

import base64
import json
import threading
from dataclasses import dataclass, field
from hashlib import sha1, sha256

LFS_ENDINGS = (".safetensors", ".parquet", ".bin", ".pt")


@dataclass(frozen=True)
class Blob:
    """One file's bytes; `lfs` says by which door it came."""

    data: bytes
    lfs: bool = False

    @property
    def git_oid(self):
        return sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()

    @property
    def oid(self):
        return sha256(self.data).hexdigest() if self.lfs else self.git_oid


@dataclass(frozen=True)
class Commit:
    files: dict  # path -> Blob
    title: str
    parent: str | None

    @property
    def oid(self):
        tree = [(path, self.files[path].git_oid) for path in sorted(self.files)]
        return sha1(json.dumps([tree, self.title, self.parent]).encode()).hexdigest()


class ConflictError(Exception):
    """The client's view of the repository is out of date, or a name is taken."""


@dataclass
class Repo:
    kind: str  # model | dataset | space
    repo_id: str
    commits: dict = field(default_factory=dict)  # oid -> Commit
    refs: dict = field(default_factory=dict)  # "main" and tags -> oid
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self):
        self._advance(Commit({".gitattributes": Blob(b"*.safetensors filter=lfs\n")}, "init", None))

    def _advance(self, commit):
        self.commits[commit.oid] = commit
        self.refs["main"] = commit.oid
        return commit.oid

    @property
    def head(self):
        return self.commits[self.refs["main"]]

    @property
    def tags(self):
        return {name: oid for name, oid in self.refs.items() if name != "main"}

    def resolve(self, revision):
        """Return the commit of a branch, a tag or a full commit id; None where there is none."""
        return self.commits.get(self.refs.get(revision, revision))

    def commit(self, lines, lfs_objects):
        """Apply the lines of one commit request, all or none; return the new commit's id."""
        header, *operations = [json.loads(line) for line in lines if line.strip()]
        with self.lock:
            expected = header["value"].get("parentCommit")
            if expected not in (None, self.head.oid):
                raise ConflictError(f"the head is {self.head.oid}, not {expected}")
            files = dict(self.head.files)
            for operation in operations:
                _apply(files, operation["key"], operation["value"], lfs_objects)
            return self._advance(Commit(files, header["value"]["summary"], self.head.oid))

    def tag(self, name, revision):
        with self.lock:
            if name in self.refs:
                raise ConflictError(f"tag {name} exists")
            self.refs[name] = self.resolve(revision).oid

    def replace(self, path, data):
        """Give a file of the head other bytes without a client; return the commit's id."""
        with self.lock:
            blob = Blob(data, lfs=self.head.files[path].lfs)
            return self._advance(Commit({**self.head.files, path: blob}, "replace", self.head.oid))


def _apply(files, key, value, lfs_objects):
    if key == "file":
        files[value["path"]] = Blob(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        if value["oid"] not in lfs_objects:
            raise ConflictError(f"{value['path']} was never uploaded")
        files[value["path"]] = Blob(lfs_objects[value["oid"]], lfs=True)
    elif key == "deletedFile":
        del files[value["path"]]
    elif key == "deletedFolder":
        for path in [path for path in files if path.startswith(value["path"])]:
            del files[path]
    else:
        raise ValueError(f"unknown operation {key}")
