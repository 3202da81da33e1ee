"""A hub on 127.0.0.1 that takes uploads: what huggingface_hub 2.4 asks to make a repository and a commit in it."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

_LARGE = (".safetensors",)


class UploadHub:
    """The server: what was made and uploaded, and with which tokens."""

    def __init__(self) -> None:
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.tokens: set[str | None] = set()
        self.refuses: int | None = None
        self._stored: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hub._answer(self)

            def do_PUT(self) -> None:
                hub._stored[self.path.rpartition("/")[2]] = _body(self)
                _send(self, 200, {})

            def do_GET(self) -> None:
                _send(self, 404, {"error": "not found"})

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, to: BaseHTTPRequestHandler) -> None:
        self.tokens.add(to.headers.get("Authorization"))
        body = _body(to)
        if self.refuses is not None:
            return _send(to, self.refuses, {"error": "no"})
        if to.path == "/api/repos/create":
            told = json.loads(body)
            name = f"{told['organization']}/{told['name']}" if told.get("organization") else told["name"]
            self.private[name] = told.get("visibility") == "private"
            return _send(to, 200, {"url": f"{self.url}/{name}", "id": name})
        if to.path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\n")
            return _send(to, 200, {"errors": [], "warnings": []})
        found = re.fullmatch(r"/api/models/(?P<id>[^/]+/[^/]+)/(?P<what>preupload|commit)/main(\?.*)?", to.path)
        if found is None and to.path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.url}/storage/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return _send(to, 200, {"transfer": "basic", "objects": objects}, "application/vnd.git-lfs+json")
        if found is None:
            return _send(to, 404, {"error": f"{to.path} is not known"})
        if found["what"] == "preupload":
            modes = [
                {
                    "path": one["path"],
                    "uploadMode": "lfs" if one["path"].endswith(_LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for one in json.loads(body)["files"]
            ]
            return _send(to, 200, {"files": modes})
        files = self.files.setdefault(found["id"], {})
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                content = self._stored[value["oid"]]
                assert hashlib.sha256(content).hexdigest() == value["oid"]
                files[value["path"]] = content
        commit = {"commitUrl": f"{self.url}/{found['id']}/commit/abc", "commitOid": "abc", "pullRequestUrl": None}
        return _send(to, 200, commit)


def _body(of: BaseHTTPRequestHandler) -> bytes:
    if of.headers.get("Transfer-Encoding") != "chunked":
        return of.rfile.read(int(of.headers.get("Content-Length", 0)))
    data = b""
    while size := int(of.rfile.readline().split(b";")[0], 16):
        data += of.rfile.read(size)
        of.rfile.readline()
    of.rfile.readline()
    return data


def _send(to: BaseHTTPRequestHandler, status: int, body: Any, kind: str = "application/json") -> None:
    data = json.dumps(body).encode()
    to.send_response(status)
    to.send_header("Content-Type", kind)
    to.send_header("Content-Length", str(len(data)))
    to.end_headers()
    to.wfile.write(data)


@contextmanager
def taking_uploads(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadHub]:
    """A hub that this process takes for the hub."""
    from huggingface_hub import close_session, constants

    hub = UploadHub()
    for name, value in {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    # Read when huggingface_hub was imported.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    # Its own protocol goes to a storage of its own.
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    close_session()
    try:
        yield hub
    finally:
        hub.close()
        close_session()
