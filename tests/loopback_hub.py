"""A Hugging Face hub on 127.0.0.1: the part of its HTTP interface that the tests use. It records downloads."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Hub:
    """Repositories by name: lists of commits, oldest first, each a dict of path -> bytes."""

    def __init__(self) -> None:
        self.repositories: dict[str, list[dict[str, bytes]]] = {}
        self.downloads: list[str] = []
        self.address = ""

    def put(self, name: str, folder: Path) -> str:
        """Commit a folder's files; return the commit."""
        self.repositories.setdefault(name, []).append(
            {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        )
        return commit_of(name, len(self.repositories[name]) - 1)

    def at(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Return the commit of a branch or commit, and its files."""
        commits = self.repositories.get(name, [])
        revisions = {commit_of(name, index): index for index in range(len(commits))} | {"main": len(commits) - 1}
        if not commits or revision not in revisions:
            return None
        return commit_of(name, revisions[revision]), commits[revisions[revision]]


def commit_of(name: str, index: int) -> str:
    return hashlib.sha1(f"{name} {index}".encode()).hexdigest()


@contextlib.contextmanager
def serving(hub: Hub) -> Iterator[str]:
    """Serve a hub on a free port; yields its address."""

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub.address
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            name, kind, revision = match.groups()
            snapshot = self.hub.at(name, revision or "main")
            if snapshot is None:
                self._missing("RevisionNotFound" if name in self.hub.repositories else "RepoNotFound")
                return
            commit, files = snapshot
            if kind == "tree":
                self._json([{"type": "file", "path": n, "size": len(d), "oid": _etag(d)} for n, d in files.items()])
            else:
                self._json({"id": name, "sha": commit, "siblings": [{"rfilename": n} for n in files], "tags": []})
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            name, revision, file = match.groups()
            snapshot = self.hub.at(name, revision)
            if snapshot is None or file not in snapshot[1]:
                self._missing("EntryNotFound" if snapshot else "RepoNotFound")
                return
            if self.command == "GET":
                self.hub.downloads.append(file)
            headers = {"ETag": f'"{_etag(snapshot[1][file])}"', "X-Repo-Commit": snapshot[0]}
            self._respond(200, snapshot[1][file], headers)
        else:
            self._missing("EntryNotFound")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        if not self.headers.get("Authorization") and path != "/api/validate-yaml":
            self._json({"error": "log in"}, 401)
        elif path == "/api/repos/create":
            fields = json.loads(body)
            name = "/".join(part for part in (fields.get("organization"), fields["name"]) if part)
            self.hub.repositories.setdefault(name, [{".gitattributes": b""}])
            self._json({"url": f"{self.hub.address}/{name}", "name": name, "id": name})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif re.fullmatch(r"/api/models/[^/]+/[^/]+/preupload/[^/]+", path):
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(body)["files"]]
            self._json({"files": files})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/[^/]+", path):
            name = match[1]
            files = dict(self.hub.repositories[name][-1])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del files[line["value"]["path"]]
            self.hub.repositories[name].append(files)
            commit = commit_of(name, len(self.hub.repositories[name]) - 1)
            self._json({"commitUrl": f"{self.hub.address}/{name}/commit/{commit}", "commitOid": commit})
        else:
            self._missing("EntryNotFound")

    def _json(self, value: object, status: int = 200) -> None:
        self._respond(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _missing(self, code: str) -> None:
        self._respond(404, b"{}", {"X-Error-Code": code})

    def _respond(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
