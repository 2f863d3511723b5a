"""A proxy in front of an object store that fails as stores and networks do, by a seed.

Each fault hits a request with the chance that `Faults` gives; which ones is drawn from the seed and
the request's number alone. `log` says what was done to which request.
"""

from __future__ import annotations

import http.client
import http.server
import random
import socket
import struct
import threading
import time
import urllib.parse
from collections import Counter
from dataclasses import dataclass, fields
from typing import Any

MADE_HERE = {"transfer-encoding", "connection", "content-length"}
SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>SlowDown</Code>'
    b"<Message>Please reduce your request rate.</Message></Error>"
)


@dataclass(frozen=True)
class Faults:
    """The share of requests that each fault hits."""

    error_500: float = 0.0
    slow_down: float = 0.0
    stall: float = 0.0
    """Half of the body, then silence for `stall_s`."""
    cut: float = 0.0
    """The connection ends within the body."""
    short: float = 0.0
    """Half of the body under a Content-Length that fits it."""
    reset: float = 0.0
    """The connection is reset before the store hears of the request."""
    lost_answer: float = 0.0
    """The store does what was asked; the connection is reset before it can say so."""
    flip: float = 0.0
    """A bit of the body is another one."""

    def draw(self, dice: random.Random) -> str | None:
        at = dice.random()
        for field in fields(self):
            at -= getattr(self, field.name)
            if at < 0:
                return field.name
        return None


class FaultyStore:
    """Use as a context manager; `endpoint` is its address. `faults` may be changed at any time."""

    def __init__(self, behind: str, faults: Faults, seed: int, stall_s: float = 3.0) -> None:
        self.faults, self.stall_s = faults, stall_s
        self.log: list[tuple[str, str, str]] = []  # fault, method, path
        self.requests: list[tuple[str, str]] = []
        self._behind = urllib.parse.urlsplit(behind).netloc
        self._dice, self._lock = random.Random(seed), threading.Lock()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def handle_one(self) -> None:
                proxy._handle(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_one

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FaultyStore:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def injected(self) -> Counter[str]:
        """How often each fault hit."""
        return Counter(fault for fault, _, _ in self.log)

    def _handle(self, asked: Any) -> None:
        with self._lock:
            fault = self.faults.draw(self._dice)
            self.requests.append((asked.command, asked.path))
            if fault:
                self.log.append((fault, asked.command, asked.path))
        body = _body_of(asked)
        if fault == "reset":
            return _reset(asked)
        if fault in ("error_500", "slow_down"):
            status, text = (503, SLOW_DOWN) if fault == "slow_down" else (500, b"oh")
            return _answer(asked, status, [("Content-Type", "application/xml")], text)
        status, headers, data = self._ask(asked, body)
        if fault == "lost_answer":
            return _reset(asked)
        if asked.command == "HEAD" or not data or fault is None:
            return _answer(asked, status, headers, data)
        if fault == "flip":
            at = self._dice.randrange(len(data))
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        half = data[: len(data) // 2]
        if fault == "short":
            return _answer(asked, status, headers, half)
        if fault in ("cut", "stall"):
            _answer(asked, status, headers, half, stated_bytes=len(data))
            time.sleep(self.stall_s if fault == "stall" else 0.0)
            asked.close_connection = True
            return None
        return _answer(asked, status, headers, data)

    def _ask(self, asked: Any, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        behind = http.client.HTTPConnection(self._behind, timeout=120)
        try:
            headers = {k: v for k, v in asked.headers.items() if k.lower() not in MADE_HERE}
            behind.request(asked.command, asked.path, body, {**headers, "Connection": "close"})
            answer = behind.getresponse()
            data = answer.read()
            sent = [(k, v) for k, v in answer.getheaders() if k.lower() not in MADE_HERE]
            if asked.command == "HEAD":
                sent.append(("Content-Length", answer.getheader("Content-Length") or "0"))
            return answer.status, sent, data
        finally:
            behind.close()


def _body_of(asked: Any) -> bytes:
    if asked.headers.get("Expect", "").lower() == "100-continue":
        asked.send_response_only(100)
        asked.end_headers()
    return bytes(asked.rfile.read(int(asked.headers.get("Content-Length") or 0)))


def _answer(
    asked: Any,
    status: int,
    headers: list[tuple[str, str]],
    data: bytes,
    stated_bytes: int | None = None,
) -> None:
    asked.send_response_only(status)
    for name, value in headers:
        asked.send_header(name, value)
    if asked.command != "HEAD":
        asked.send_header(
            "Content-Length", str(len(data) if stated_bytes is None else stated_bytes)
        )
    asked.end_headers()
    if asked.command != "HEAD":
        asked.wfile.write(data)
        asked.wfile.flush()


def _reset(asked: Any) -> None:
    asked.close_connection = True
    linger = struct.pack("ii", 1, 0)  # no goodbye: the client sees a reset
    asked.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    asked.connection.close()
