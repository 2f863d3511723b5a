from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config import RequestError
from pipelines.curation.caption_server import REFUSED
from pipelines.curation.captioners import (
    CaptionerFailed,
    check_backend,
    open_captioner,
    sidecar_caption,
)
from pipelines.curation.captions import CaptionsConfig
from pipelines.curation.language import is_refusal
from pipelines.media import jpeg_bytes
from pipelines.world.scenes import random_scene, render_frames


class Server(ThreadingHTTPServer):
    """Answers like an OpenAI-compatible server: with the number of pictures it was shown."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.faults: list[int] = []  # HTTP codes to answer with, before answering well
        self.answers: list[Any] = []  # given as they are, before answering well
        self.why = "not now"  # what a fault says
        self.pause_s = 0.0  # between the pieces of an answer
        self.cut_short = False  # says that more bytes come than do

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


def said(text: Any, **choice: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}, **choice}]}


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.reply(200, {"data": []})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.faults:
            self.reply(self.server.faults.pop(0), {"error": self.server.why})
            return
        self.server.seen.append(body)
        self.server.keys.append(self.headers.get("Authorization"))
        urls = [c["image_url"]["url"] for c in body["messages"][0]["content"][1:]]
        first = base64.b64decode(urls[0].partition("base64,")[2])
        text = f"{len(urls)} pictures, the first of {len(first)} bytes"
        self.reply(200, self.server.answers.pop(0) if self.server.answers else said(text))

    def reply(self, code: int, value: Any) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data) + 9 * self.server.cut_short))
        self.end_headers()
        pieces = [data] if not self.server.pause_s else [bytes((b,)) for b in data]
        for piece in pieces:
            try:
                self.wfile.write(piece)
            except OSError:  # whoever asked has gone
                return
            time.sleep(self.server.pause_s)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def config_for(server: Server, **changes: Any) -> CaptionsConfig:
    return CaptionsConfig(backend=f"openai:{server.url}", model="some-vlm", **changes)


def test_a_server_is_shown_the_frames_of_each_clip(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUR_KEY", "secret")
    config = config_for(server, frames=2, api_key_env="OUR_KEY")
    check_backend(config)
    captioner = open_captioner(config)
    found = captioner.caption([[b"a" * n, b"b", b"c"] for n in (3, 5, 7)])
    assert found == [f"2 pictures, the first of {n} bytes" for n in (3, 5, 7)]
    assert captioner.name == "openai:some-vlm"
    assert {(s["model"], s["temperature"]) for s in server.seen} == {("some-vlm", 0)}
    assert set(server.keys) == {"Bearer secret"}


def test_a_busy_server_is_asked_again(server: Server) -> None:
    server.faults = [503, 429]
    assert open_captioner(config_for(server, tries=3)).caption([[b"x"]])


def test_a_server_that_refuses_stops_the_job_and_gives_no_caption(server: Server) -> None:
    server.faults = [400]
    with pytest.raises(CaptionerFailed, match=r"HTTP 400 .*not now"):
        open_captioner(config_for(server, tries=5)).caption([[b"x"]])
    assert server.faults == []
    server.faults = [500, 500]
    with pytest.raises(CaptionerFailed, match="HTTP 500"):
        open_captioner(config_for(server, tries=2)).caption([[b"x"]])


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (said([{"type": "text", "text": "a dog"}, {"type": "text", "text": "runs"}]), "a dog runs"),
        (said("<think>is it a\ndog?</think>\n a dog runs"), "a dog runs"),
        (said("<think>never ends"), ""),
        (said(None, finish_reason="content_filter"), REFUSED),
        ({"choices": [{"message": {"content": None, "refusal": "No."}}]}, REFUSED),
        (said(None), ""),
    ],
)
def test_all_shapes_of_an_answer_are_read(server: Server, answer: Any, text: str) -> None:
    server.answers = [answer]
    assert open_captioner(config_for(server)).caption([[b"x"]]) == [text]


@pytest.mark.parametrize("answer", [b"<html>busy</html>", [], {"choices": []}, {"choices": [7]}, 3])
def test_an_answer_that_is_none_is_asked_for_again(server: Server, answer: Any) -> None:
    server.answers = [answer]
    assert open_captioner(config_for(server, tries=2)).caption([[b"xyz"]])[0].endswith("3 bytes")
    server.answers = [answer]
    with pytest.raises(CaptionerFailed, match="no caption"):
        open_captioner(config_for(server, tries=1)).caption([[b"x"]])


def test_a_picture_that_a_server_will_not_see_is_one_clip_s_fault(server: Server) -> None:
    server.faults, server.why = [400], "content_filter: sexual"
    found = open_captioner(config_for(server)).caption([[b"x"]])
    assert found == [REFUSED] and is_refusal(REFUSED)


def test_an_answer_that_drips_or_breaks_off_is_no_answer(server: Server) -> None:
    server.pause_s = 0.05
    with pytest.raises(CaptionerFailed, match="TimeoutError"):
        open_captioner(config_for(server, tries=1, timeout_s=0.5)).caption([[b"x"]])
    server.pause_s, server.cut_short = 0.0, True
    with pytest.raises(CaptionerFailed, match=r"IncompleteRead|broke off"):
        open_captioner(config_for(server, tries=1)).caption([[b"x"]])


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("openai:http://127.0.0.1:9", "no server answers"),
        ("openai:file:///etc", "no server answers"),
        ("telepathy", "expected coca:MODEL"),
        ("coca:", "expected coca:MODEL"),
    ],
)
def test_a_backend_that_cannot_answer_is_refused_before_the_start(backend: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        check_backend(CaptionsConfig(backend=backend, timeout_s=5))


def test_words_beside_a_film_are_its_caption(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("\n\n  A dog runs.  \nmore\n")
    films = [str(tmp_path / name) for name in ("a.mp4", "b.mp4")]
    assert sidecar_caption(films) == "A dog runs."
    assert sidecar_caption(films[:1]) == ""
    os.mkfifo(tmp_path / "a.txt")  # opening it would wait for ever
    assert sidecar_caption(films[:1]) == ""


def test_coca_says_the_same_whatever_shares_its_batch() -> None:
    rng = np.random.default_rng(5)
    scenes = [random_scene(rng) for _ in range(5)]
    clips = [
        [jpeg_bytes(frame) for frame in render_frames(scene, 3, 160 if i % 2 else 224, 90, 8.0)]
        for i, scene in enumerate(scenes)
    ]
    captioner = open_captioner(CaptionsConfig(clips_per_batch=4))
    together = captioner.caption(clips)
    assert [captioner.caption([clip])[0] for clip in clips] == together
    right = [s.colour in said and s.shape in said for s, said in zip(scenes, together, strict=True)]
    assert sum(right) >= 4, list(zip([s.still_caption for s in scenes], together, strict=True))
