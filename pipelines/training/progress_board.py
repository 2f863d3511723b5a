"""How far training is, seen from the job that started it.

The worker that trains is another process, maybe on another machine. It posts its step to a small
actor, never waiting for it; the driver reads the actor and moves the one progress line.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pipelines.progress import Progress

POST_EVERY_S = 0.5
READ_EVERY_S = 0.5


class Board:
    """The latest news; a Ray actor."""

    def __init__(self) -> None:
        self._news: dict[str, Any] = {}
        self._stopped = ""

    def stop(self, reason: str) -> None:
        self._stopped = reason

    def stopped(self) -> str:
        """Why training ended before its last step; empty when it did not."""
        return self._stopped

    def post(self, news: dict[str, Any]) -> None:
        self._news = news

    def read(self) -> dict[str, Any]:
        return self._news


def start_board() -> Any:
    import ray

    return ray.remote(Board).options(num_cpus=0).remote()


class Poster:
    """The worker's side: `post` often, it sends seldom. `stop` says why training ends early."""

    def __init__(self, send: Callable[[dict[str, Any]], None], stop: Callable[[str], None]) -> None:
        self._send, self.stop = send, stop
        self._posted_s = 0.0

    @classmethod
    def to_board(cls, board: Any) -> Poster:
        """News is sent off without waiting; a stop is waited for."""
        import ray

        return cls(board.post.remote, lambda reason: ray.get(board.stop.remote(reason)))

    def post(self, step: int, figures: dict[str, Any], *, at_once: bool = False) -> None:
        now_s = time.monotonic()
        if at_once or now_s - self._posted_s >= POST_EVERY_S:
            self._posted_s = now_s
            self._send({"step": step, "figures": figures})


@contextlib.contextmanager
def shown_progress(board: Any, first_step: int, last_step: int, description: str) -> Iterator[None]:
    """Shows what is posted, while the block runs."""
    ended = threading.Event()
    with Progress(last_step - first_step, "steps", description) as progress:
        reader = threading.Thread(
            target=_follow, args=(board, first_step, progress, ended), daemon=True
        )
        reader.start()
        try:
            yield
        finally:
            ended.set()
            reader.join(timeout=10)


def _follow(board: Any, first_step: int, progress: Progress, ended: threading.Event) -> None:
    import ray

    while True:
        last_look = ended.wait(READ_EVERY_S)
        try:
            news = ray.get(board.read.remote(), timeout=5)
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
            news = {}  # a busy or ending cluster: the line just stands still
        if news:
            # After a lost worker the steps start again at the last checkpoint: stand still, too.
            moved = max(0, news["step"] - first_step - progress.done)
            progress.advance(moved, **news["figures"])
        if last_look:
            return
