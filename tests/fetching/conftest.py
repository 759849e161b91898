"""A server on this machine that misbehaves on request; nothing here reaches any other."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from neuronscope.fetching.download import Patience

CONTENT = bytes(range(256)) * 2000  # 512,000 bytes
QUICK = Patience(timeout=5.0, repeats=2, pause=0.0, block=1 << 14)


@dataclass
class Server:
    """What it serves, and what it was asked."""

    url: str
    routes: dict[str, Callable[[BaseHTTPRequestHandler], None]] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def at(self, path: str, answer: Callable[[BaseHTTPRequestHandler], None]) -> str:
        """Answer so at a path; gives its address."""
        self.routes[path] = answer
        return self.url + path

    def headers(self, path: str) -> list[dict[str, str]]:
        """The headers of each request for a path."""
        return [headers for asked, headers in self.asked if asked == path]


def _serve() -> tuple[ThreadingHTTPServer, Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.asked.append((self.path, dict(self.headers)))
            served.routes.get(self.path, status(404))(self)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Server(f"http://127.0.0.1:{http.server_port}")
    threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return http, served


@pytest.fixture
def server() -> Iterator[Server]:
    """A server."""
    http, served = _serve()
    yield served
    http.shutdown()
    http.server_close()


@pytest.fixture
def other() -> Iterator[Server]:
    """A second one: another host, as far as addresses tell."""
    http, served = _serve()
    yield served
    http.shutdown()
    http.server_close()


@pytest.fixture(autouse=True)
def _at_home(monkeypatch):
    """No proxy, no credentials of whoever runs the tests, no connection to another machine."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: tuple[str, int]) -> None:
        assert address[0] == "127.0.0.1", f"tests may not reach {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


def status(code: int, headers: dict[str, str] | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    """An answer without content."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def serving(
    content: bytes = CONTENT,
    *,
    ranges: bool = True,
    drops: list[int] | None = None,
    etag: str | None = '"1"',
    kind: str = "application/octet-stream",
    length: int | None = None,
) -> Callable[[BaseHTTPRequestHandler], None]:
    """A file: with or without ranges; each number in `drops` ends one answer after so many bytes."""
    left = list(drops or [])

    def answer(handler: BaseHTTPRequestHandler) -> None:
        wanted, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
        partial = ranges and wanted is not None and condition in (None, etag)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if partial else 0
        if partial and start >= len(content):
            status(416)(handler)
            return
        handler.send_response(206 if partial else 200)
        if partial:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if etag is not None:
            handler.send_header("ETag", etag)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str((length or len(content)) - start))
        handler.end_headers()
        end = len(content)
        if left:
            end = min(end, start + left.pop(0))
            handler.close_connection = True
        handler.wfile.write(content[start:end])

    return answer
