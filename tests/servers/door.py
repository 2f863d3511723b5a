"""A door in front of a server: it lets requests through, shuts, forbids, or holds them."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

MADE_HERE = {"transfer-encoding", "connection", "content-length", "server", "date"}


class Door:
    """`uri` is its address; `requests` the paths that came, in order, let through or not.

    Modes: `open()`; `shut()`: closes connections without an answer; `forbid()`: answers 403, but
    to `/version` and `/health`, as MLflow does to a host name it was not told of; `slow(s)`:
    lets everything through, each `s` seconds late; `hold()`: answers nobody until `open()`.
    """

    def __init__(self, behind: str, before: Callable[[int], None] = lambda _: None) -> None:
        """`behind`: the server's address. `before(n)` runs when the n-th request was answered by
        the server, before the client hears it."""
        self.requests: list[str] = []
        self.arrived = threading.Event()
        self._behind, self._before = urllib.parse.urlsplit(behind), before
        self._mode = "open"
        self._late_s = 0.0
        self._opened = threading.Event()
        self._opened.set()
        door = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def handle_one(self) -> None:
                with contextlib.suppress(ConnectionError):  # who hung up hears no answer
                    door._handle(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = handle_one

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Door:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.open()
        self._server.shutdown()
        self._server.server_close()

    def open(self) -> None:
        self._mode = "open"
        self._opened.set()

    def shut(self) -> None:
        self._mode = "shut"
        self._opened.set()

    def forbid(self) -> None:
        self._mode = "forbid"
        self._opened.set()

    def slow(self, late_s: float) -> None:
        self._mode, self._late_s = "slow", late_s
        self._opened.set()

    def hold(self) -> None:
        self._mode = "hold"
        self._opened.clear()

    @property
    def is_holding(self) -> bool:
        return self._mode == "hold" and self.arrived.is_set()

    def _handle(self, asked: Any) -> None:
        self.requests.append(asked.path)
        body = asked.rfile.read(int(asked.headers.get("Content-Length") or 0))
        if self._mode == "hold":
            self.arrived.set()
            self._opened.wait()
        if self._mode == "slow":
            time.sleep(self._late_s)
        if self._mode == "shut":
            asked.close_connection = True
            return
        if self._mode == "forbid" and asked.path not in ("/version", "/health"):
            asked.send_error(403)
            return
        status, headers, answer = self._ask(asked, body)
        self._before(len(self.requests))
        asked.send_response(status)
        for name, value in headers:
            if name.lower() not in MADE_HERE:
                asked.send_header(name, value)
        asked.send_header("Content-Length", str(len(answer)))
        asked.end_headers()
        asked.wfile.write(answer)

    def _ask(self, asked: Any, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        behind = http.client.HTTPConnection(self._behind.netloc, timeout=120)
        try:
            headers = {**asked.headers, "Host": self._behind.netloc, "Connection": "close"}
            behind.request(asked.command, asked.path, body, headers)
            answer = behind.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            behind.close()
