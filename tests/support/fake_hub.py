"""A hub on this machine: as much of its HTTP API as an upload and a download of a model need.

It keeps what it gets in memory. Large files come by LFS's basic transfer, all others within the
commit, as the hub does it.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c" * 40
LARGE = 10_000  # bytes from which a file goes by LFS here
Files = dict[str, bytes]


@dataclass
class Hub:
    """What the hub holds, and what it was asked.

    Attributes:
        url: of the server.
        repositories: files of each repository, by OWNER/NAME and branch.
        private: the repositories that were made private.
        commits: how many there were.
        tokens: the authorizations that came.
        refusal: an HTTP status and a text with which commits are refused.
    """

    url: str = ""
    repositories: dict[str, dict[str, Files]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0
    tokens: set[str | None] = field(default_factory=set)
    refusal: tuple[int, str] | None = None

    def files(self, repository: str, branch: str = "main") -> Files:
        """Return the files of a repository."""
        return self.repositories[repository][branch]


@contextmanager
def fake_hub() -> Iterator[Hub]:
    """Serve a hub on a free port of this machine."""
    hub = Hub()

    class Handler(_Handler):
        held = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    held: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self._resolve(with_body=False)

    def do_GET(self) -> None:
        if "/resolve/" in self.path:
            self._resolve(with_body=True)
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/?]+)(/revision/.*|\?.*)?", self.path):
            names = [{"rfilename": name} for name in self.held.files(match[1])]
            self._json({"id": match[1], "sha": COMMIT, "siblings": names})
        elif match := re.match(r"/api/models/([^/]+/[^/]+)/tree/", self.path):
            self._json([_entry(*item) for item in self.held.files(match[1]).items()])
        else:
            self._json({"error": f"no {self.path}"}, 404)

    def do_PUT(self) -> None:
        content = self._body()
        assert hashlib.sha256(content).hexdigest() == self.path.rpartition("/")[2]
        self.held.objects[self.path.rpartition("/")[2]] = content
        self._json({})

    def do_POST(self) -> None:
        self.held.tokens.add(self.headers.get("Authorization"))
        body, path = self._body(), self.path.partition("?")[0]
        if path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif match := re.fullmatch(r"/api/models/(.+/.+)/branch/(.+)", path):
            branches = self.held.repositories[match[1]]
            is_new = match[2] not in branches
            branches.setdefault(match[2], dict(branches["main"]))
            self._json({}, 200 if is_new else 409)
        elif match := re.fullmatch(r"/api/models/.+/preupload/.+", path):
            self._json({"files": [_mode(entry) for entry in json.loads(body)["files"]]})
        elif path.endswith(".git/info/lfs/objects/batch"):
            objects = [self._action(entry) for entry in json.loads(body)["objects"]]
            self._json({"transfer": "basic", "objects": objects})
        elif match := re.fullmatch(r"/api/models/(.+/.+)/commit/(.+)", path):
            self._commit(match[1], match[2], body)
        else:
            self._json({"error": f"no {path}"}, 404)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'me'}/{asked['name']}"
        is_new = name not in self.held.repositories
        self.held.repositories.setdefault(name, {"main": {}})
        if is_new and (asked.get("private") or asked.get("visibility") == "private"):
            self.held.private.add(name)
        self._json({"url": f"{self.held.url}/{name}"}, 200 if is_new else 409)

    def _action(self, entry: dict[str, Any]) -> dict[str, Any]:
        if entry["oid"] in self.held.objects:
            return entry
        href = f"{self.held.url}/objects/{entry['oid']}"
        return {**entry, "actions": {"upload": {"href": href}}}

    def _commit(self, repository: str, branch: str, body: bytes) -> None:
        if self.held.refusal is not None:
            status, text = self.held.refusal
            self._json({"error": text}, status)
            return
        files = self.held.repositories[repository][branch]
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.held.objects[value["oid"]]
        self.held.commits += 1
        url = f"{self.held.url}/{repository}/commit/{COMMIT}"
        self._json({"commitUrl": url, "commitOid": COMMIT})

    def _resolve(self, with_body: bool) -> None:
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)", self.path)
        assert match is not None
        branch = "main" if match[2] == COMMIT else match[2]
        content = self.held.repositories.get(match[1], {}).get(branch, {}).get(match[3])
        if content is None:
            self._json({}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"ETag": hashlib.sha256(content).hexdigest(), "X-Repo-Commit": COMMIT}
        self._answer(content, 200, headers, with_body)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self._answer(content, status, headers or {}, self.command != "HEAD")

    def _answer(
        self, content: bytes, status: int, headers: dict[str, str], with_body: bool
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)


def _mode(entry: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if entry["size"] >= LARGE else "regular"
    return {"path": entry["path"], "uploadMode": mode, "shouldIgnore": False}


def _entry(name: str, content: bytes) -> dict[str, Any]:
    oid = hashlib.sha1(content).hexdigest()
    return {"type": "file", "path": name, "size": len(content), "oid": oid}
