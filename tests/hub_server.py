"""A Hugging Face hub on 127.0.0.1: the answers that huggingface_hub 2.4 asks for, and a hub's ways to fail.

Large files are given as the hub gives them, by a redirect to a storage on another origin; small ones by a redirect
within the hub. Xet is not spoken: no file has its headers, so huggingface_hub takes HTTP.
"""

import hashlib
import json
import re
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

import pytest

CHUNK = 4096
# As in the hub's addresses, the id of a dataset begins with datasets/.
ID = "(?P<id>(datasets/)?[^/]+/[^/]+)"
RESOLVE = re.compile(rf"/{ID}/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
CACHE = re.compile(rf"/api/resolve-cache/(models/)?{ID}/(?P<revision>[^/]+)/(?P<file>.+)")
STORAGE = re.compile(r"/storage/(?P<digest>[0-9a-f]{64})/(?P<file>.+)")
INFO = re.compile(rf"/api/(models/)?{ID}(/revision/(?P<revision>[^/]+))?")
TREE = re.compile(rf"/api/(models/)?{ID}/tree/(?P<revision>[^/]+)")


@dataclass(frozen=True)
class Request:
    """What somebody asked."""

    method: str
    path: str
    query: dict[str, list[str]]
    authorization: str | None
    range: str | None
    at_storage: bool


@dataclass
class Repository:
    """A model or a dataset, its commits and what the hub says about it."""

    id: str
    facts: dict[str, Any]
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    granted: bool = True
    """Whether those who are logged in may have the files of a gated model."""

    def commit(self, files: dict[str, bytes], name: str = "main") -> str:
        """Add a commit of these files, let the name stand for it, and return its hash."""
        sha = hashlib.sha1(repr((self.id, sorted(files.items()))).encode()).hexdigest()
        self.commits[sha], self.refs[name] = files, sha
        return sha

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit that a name or a hash stands for."""
        sha = self.refs.get(revision, revision)
        return (sha, self.commits[sha]) if sha in self.commits else None


@dataclass
class Refusal:
    """What is answered in place of the real thing."""

    status: int
    headers: dict[str, str]
    part: str
    times: float


class Hub:
    """The server; `close` ends it and lets go of everyone who waits."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.served: Counter[str] = Counter()
        """Bytes of content that were sent, by file name."""
        self.ignores_ranges = False
        self.released = Event()
        """Set, it lets those go on whose file was held."""
        self.abandons_held = False
        """Whether those whose file was held get no more of it, but their connection broken."""
        self._held: dict[str, int] = {}
        self._dropped: dict[str, list[int]] = {}
        self._refusals: list[Refusal] = []
        self._lock = Lock()
        hub, storage = (ThreadingHTTPServer(("127.0.0.1", 0), self._handler()) for _ in range(2))
        self._servers = (hub, storage)
        self.url, self.storage = (f"http://127.0.0.1:{server.server_port}" for server in self._servers)
        for server in self._servers:
            server.daemon_threads = True
            Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def add(self, model_id: str, files: dict[str, bytes] | None = None, **facts: Any) -> Repository:
        """Add a model, by default one with safetensors that generates text; `facts` are fields of the hub's answer.

        A dataset's id begins with datasets/.
        """
        usual = {
            "downloads": 10,
            "likes": 1,
            "gated": False,
            "pipeline_tag": "text-generation",
            "library_name": "transformers",
            "lastModified": "2026-03-04T05:06:07.000Z",
            "tags": ["transformers", "safetensors", "license:apache-2.0"],
            "safetensors": {"parameters": {"BF16": 1000}, "total": 1000},
        }
        repository = Repository(model_id, usual | facts)
        repository.commit(files or {})
        self.repositories[model_id] = repository
        return repository

    def refuse(self, status: int, part: str = "", times: float = float("inf"), **headers: str) -> None:
        """Answer every request whose path holds `part` with this status, so many times; `X_Error_Code=` is a header."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._refusals.append(Refusal(status, named, part, times))

    def relent(self) -> None:
        """Refuse nothing any more."""
        self._refusals.clear()

    def drop(self, file: str, *after: int) -> None:
        """Break the connection after so many bytes of a file: once for each number."""
        self._dropped[file] = list(after)

    def hold(self, file: str, after: int) -> None:
        """Send nothing of a file after so many bytes, until `released`."""
        self._held[file] = after

    def asked(self, part: str) -> list[Request]:
        """The requests whose path holds `part`."""
        return [request for request in self.requests if part in request.path]

    def close(self) -> None:
        """End the server."""
        self.released.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with suppress(ConnectionError):
                    hub._answer(self)

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def _answer(self, to: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(to.path)
        path, query = parts.path, parse_qs(parts.query)
        at_storage = to.server is self._servers[1]
        request = Request(to.command, path, query, to.headers["Authorization"], to.headers["Range"], at_storage)
        with self._lock:
            self.requests.append(request)
            refusal = next((refusal for refusal in self._refusals if refusal.part in path and refusal.times > 0), None)
            if refusal is not None:
                refusal.times -= 1
        if refusal is not None:
            _send(to, refusal.status, {"error": "refused"}, refusal.headers)
        elif found := STORAGE.fullmatch(path):
            self._send_file(to, unquote(found["file"]), self._stored(found["digest"]), f'"{found["digest"]}"')
        elif path == "/api/models":
            self._send_search(to, query)
        elif found := TREE.fullmatch(path) or INFO.fullmatch(path) or CACHE.fullmatch(path) or RESOLVE.fullmatch(path):
            self._answer_about(to, found, query)
        else:
            _send(to, 404, {"error": "no such page"})

    def _answer_about(self, to: BaseHTTPRequestHandler, found: re.Match[str], query: dict[str, list[str]]) -> None:
        repository = self.repositories.get(found["id"])
        if repository is None:
            # The hub tells strangers the same about what is private and what is not there.
            status = 404 if to.headers["Authorization"] else 401
            return _send(to, status, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        at = repository.files(unquote(found["revision"] or "main"))
        if at is None:
            return _send(to, 404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        sha, files = at
        if found.re is INFO:
            return _send(to, 200, _info(repository, sha, files, "blobs" in query))
        if found.re is TREE:
            return _send(to, 200, [_tree_entry(name, content) for name, content in files.items()])
        name = unquote(found["file"])
        if repository.facts["gated"] and not (to.headers["Authorization"] and repository.granted):
            status = 403 if to.headers["Authorization"] else 401
            return _send(to, status, {"error": "Access to this model is restricted."}, {"X-Error-Code": "GatedRepo"})
        if name not in files:
            return _send(to, 404, {"error": "Entry not found"}, {"X-Error-Code": "EntryNotFound"})
        content = files[name]
        if found.re is CACHE:
            return self._send_file(to, name, content, f'"{git_digest(content)}"', {"X-Repo-Commit": sha})
        headers = {"X-Repo-Commit": sha, "X-Linked-Size": str(len(content))}
        if is_large(name):
            digest = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Etag": f'"{digest}"', "Location": f"{self.storage}/storage/{digest}/{quote(name)}"}
            return _send(to, 302, None, headers)
        kind = "" if repository.id.startswith("datasets/") else "models/"
        where = f"/api/resolve-cache/{kind}{repository.id}/{sha}/{quote(name, safe='')}"
        return _send(to, 307, None, headers | {"X-Linked-Etag": f'"{git_digest(content)}"', "Location": where})

    def _stored(self, digest: str) -> bytes:
        commits = (files for repository in self.repositories.values() for files in repository.commits.values())
        contents = (content for files in commits for content in files.values())
        return next(content for content in contents if hashlib.sha256(content).hexdigest() == digest)

    def _send_search(self, to: BaseHTTPRequestHandler, query: dict[str, list[str]]) -> None:
        text, tags = query.get("search", [""])[0].lower(), set(query.get("filter", []))
        start, size = int(query.get("cursor", ["0"])[0]), int(query.get("limit", ["1000"])[0])
        found = [
            repository
            for repository in self.repositories.values()
            if text in repository.id.lower() and tags <= set(repository.facts["tags"])
        ]
        headers = {}
        if start + size < len(found):
            following = urlencode(query | {"cursor": [str(start + size)]}, doseq=True)
            headers["Link"] = f'<{self.url}/api/models?{following}>; rel="next"'
        shown = query.get("expand")
        page = [
            {"_id": "1", "id": repository.id}
            | {key: value for key, value in repository.facts.items() if not shown or key in shown}
            for repository in found[start : start + size]
        ]
        _send(to, 200, page, headers)

    def _send_file(
        self, to: BaseHTTPRequestHandler, name: str, content: bytes, etag: str, headers: dict[str, str] | None = None
    ) -> None:
        asked = None if self.ignores_ranges else re.fullmatch(r"bytes=(\d+)-", to.headers["Range"] or "")
        start = int(asked[1]) if asked else 0
        to.send_response(206 if asked else 200)
        if asked:
            to.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        for key, value in {"Content-Length": len(content) - start, "ETag": etag, **(headers or {})}.items():
            to.send_header(key, str(value))
        to.end_headers()
        if to.command == "HEAD":
            return
        drops = self._dropped.get(name)
        end = min(len(content), drops.pop(0) if drops else len(content))
        held = self._held.get(name, end)
        while start < end:
            if start >= held:
                self.released.wait()
                held = end
                if self.abandons_held:
                    break
            part = content[start : min(start + CHUNK, end, max(held, start + 1))]
            to.wfile.write(part)
            with self._lock:
                self.served[name] += len(part)
            start += len(part)
        if start < len(content):
            to.close_connection = True
            to.connection.shutdown(socket.SHUT_RDWR)


def is_large(name: str) -> bool:
    """Whether the hub stores such a file apart."""
    return name.endswith((".safetensors", ".bin", ".parquet"))


def git_digest(content: bytes) -> str:
    """The id that git gives to a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _info(repository: Repository, sha: str, files: dict[str, bytes], blobs: bool) -> dict[str, Any]:
    siblings: list[dict[str, Any]] = [{"rfilename": name} for name in files]
    if blobs:
        for sibling, (name, content) in zip(siblings, files.items(), strict=True):
            sibling |= {"size": len(content), "blobId": git_digest(content)}
            if is_large(name):
                digest = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
    return {
        "_id": "1",
        "id": repository.id.removeprefix("datasets/"),
        "sha": sha,
        "siblings": siblings,
        "config": _told_of(files.get("config.json", b"{}")),
        **repository.facts,
    }


def _told_of(config: bytes) -> dict[str, Any]:
    """What the hub says of a model's configuration."""
    try:
        values = json.loads(config)
    except ValueError:
        return {}
    return {name: values[name] for name in ("architectures", "model_type", "auto_map") if name in values}


def _tree_entry(name: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": git_digest(content)}
    if is_large(name):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry


def _send(to: BaseHTTPRequestHandler, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
    data = b"" if body is None else json.dumps(body).encode()
    to.send_response(status)
    for key, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}.items():
        to.send_header(key, value)
    to.end_headers()
    if to.command != "HEAD":
        to.wfile.write(data)


@contextmanager
def running_hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that this process takes for the hub, and its child processes too."""
    from huggingface_hub import close_session, constants

    hub = Hub()
    for name, value in environment(hub).items():
        monkeypatch.setenv(name, value)
    # Read when huggingface_hub was imported, which another test may have done.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "huggingface" / "token"))
    close_session()
    try:
        yield hub
    finally:
        hub.close()
        close_session()


def environment(hub: Hub) -> dict[str, str]:
    """What makes a process take this server for the hub."""
    return {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
