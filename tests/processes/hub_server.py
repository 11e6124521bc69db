"""A Hub on the loopback interface: the endpoints that huggingface_hub uses for files, and a port for large files.

It speaks what the Hub's documentation and the client's source say of ``/{repo}/resolve/{revision}/{file}``: commits,
ETags, redirects to signed URLs, byte ranges; and it has the faults that tests ask of it. It has no Xet.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub.utils import close_session

COMMIT = "c0ffee00" * 5
CHUNK = 1 << 16
TOKEN = "hf_secretSECRETsecret"
_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


class Hub:
    """Repos by name, each a dict of files by name (bytes, or what can be sliced as bytes), and a record of requests."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, object]] = {}
        self.commits = {"main": COMMIT, COMMIT: COMMIT}
        self.requests: list[tuple[str, str, str, dict[str, str]]] = []  # host, method, path, headers
        self.sent = 0  # bytes of bodies
        self.private = self.ranges_ignored = self.conditions_ignored = False
        self.cuts: list[int] = []  # counts of sent bytes of large files at which the connection is closed
        self.answers: list[tuple[int, dict[str, str]]] = []  # to requests for large files, before they are served
        self.epoch = 0  # a part of the ETags of the second port
        self.expired = set()  # signatures
        self.signature = 0
        self.large = 0  # bytes of large files that were sent
        self.lock = threading.Lock()
        self.hub, self.store = (ThreadingHTTPServer(("127.0.0.1", 0), handler(self, host)) for host in ("hub", "store"))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.hub.server_port}"

    def paths(self, host: str) -> list[str]:
        """The requests to a host, as METHOD FILE."""
        found = [(method, path) for place, method, path, _ in self.requests if place == host]
        return [f"{method} {path.rpartition('/')[2].partition('?')[0]}" for method, path in found]

    def tokens(self, host: str) -> set[str | None]:
        return {headers.get("authorization") for place, _, _, headers in self.requests if place == host}


@contextmanager
def allowed(hub: Hub, place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process ask this Hub, with empty caches in a directory, and without waiting for long."""
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment(hub, place).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr("qwenvis.sources.ranges.PAUSE", 0.001)
    yield
    close_session()  # connections to ports that other Hubs may have


def environment(hub: Hub, place: Path) -> dict[str, str]:
    """The variables of a process that is to ask this Hub."""
    caches = {
        "HF_HOME": str(place / "home"),
        "HF_HUB_CACHE": str(place / "hf"),
        "QWENVIS_CACHE": str(place / "qwenvis"),
    }
    return {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1", **caches}


@contextmanager
def running() -> Iterator[Hub]:
    """A Hub that runs as long as the block."""
    hub = Hub()
    threads = [threading.Thread(target=each.serve_forever, args=(0.01,)) for each in (hub.hub, hub.store)]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for each in (hub.hub, hub.store):
            each.shutdown()
            each.server_close()
        for thread in threads:
            thread.join()


def etag_of(repo: str, name: str, content: object) -> str:
    return hashlib.sha256(f"{repo}/{name}/{len(content)}".encode() + bytes(content[:64])).hexdigest()


def handler(hub: Hub, host: str) -> type[BaseHTTPRequestHandler]:
    """The handler of one of the two ports."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            with hub.lock:
                headers = {key.lower(): value for key, value in self.headers.items()}
                hub.requests.append((host, self.command, self.path, headers))
            try:
                (self.resolve if host == "hub" else self.serve)()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def answer(self, status: int, headers: dict[str, str], body: object = b"", span: range | None = None) -> None:
            span = range(len(body)) if span is None else span
            self.send_response(status)
            for name, value in {"Content-Length": str(len(span)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.send(body, span)

        def send(self, body: object, span: range) -> None:
            """Send a body; a cut ends it early, with all that was sent before delivered."""
            place = span.start
            while place < span.stop:
                part = bytes(body[place : min(place + CHUNK, span.stop)])
                with hub.lock:
                    if cut := host == "store" and bool(hub.cuts) and hub.large + len(part) > hub.cuts[0]:
                        part = part[: max(0, hub.cuts.pop(0) - hub.large)]
                    hub.sent += len(part)
                    hub.large += len(part) if host == "store" else 0
                self.wfile.write(part)
                place += len(part)
                if cut:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_WR)
                    return

        def fail(self, status: int, code: str, **headers: str) -> None:
            self.answer(
                status,
                {"X-Error-Code": code, "X-Error-Message": f"{code} for {self.headers['authorization']}", **headers},
            )

        def resolve(self) -> None:
            match = _RESOLVE.fullmatch(self.path.partition("?")[0])
            repo, revision, name = match.groups() if match else ("", "", "")
            if repo not in hub.repos or (hub.private and self.headers["authorization"] != f"Bearer {TOKEN}"):
                return self.fail(401, "RepoNotFound")
            if revision.replace("%2F", "/") not in hub.commits:
                return self.fail(404, "RevisionNotFound")
            commit = {"X-Repo-Commit": hub.commits[revision.replace("%2F", "/")]}
            if name not in hub.repos[repo]:
                return self.fail(404, "EntryNotFound", **commit)
            content = hub.repos[repo][name]
            etag = etag_of(repo, name, content)
            if not name.endswith((".safetensors", ".gguf")):
                return self.answer(200, {"ETag": f'"{etag}"', **commit}, content)
            with hub.lock:
                hub.signature += 1
            url = f"http://127.0.0.1:{hub.store.server_port}/{repo}/{name}?signature={hub.signature}"
            linked = {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(content)), "Location": url}
            return self.answer(302, {**commit, **linked})

        def serve(self) -> None:
            with hub.lock:
                status, headers = hub.answers.pop(0) if hub.answers else (0, {})
            if status:
                return self.answer(status, headers)
            path, _, signature = self.path.partition("?signature=")
            if signature in hub.expired:
                return self.answer(403, {})
            _, owner, repo, name = path.split("/", 3)
            content = hub.repos[f"{owner}/{repo}"][name]
            etag = f'"{etag_of(repo, name, content)[:20]}-{hub.epoch}"'
            if self.headers.get("If-Match", etag) != etag and not hub.conditions_ignored:
                return self.answer(412, {})
            match = None if hub.ranges_ignored else _RANGE.fullmatch(self.headers.get("Range", ""))
            if match is None:
                return self.answer(200, {"ETag": etag}, content)
            start, stop = int(match[1]), min(int(match[2]) + 1, len(content))
            if start >= len(content):
                return self.answer(416, {})
            ranged = {"ETag": etag, "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
            return self.answer(206, ranged, content, range(start, stop))

    return Handler
