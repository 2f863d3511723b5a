"""What the training workers and the job that started them tell each other.

The worker that trains is another process, maybe on another machine. It posts its step to a small
actor, never waiting for it; the driver reads the actor, moves the one progress line and prints
what is to be said. The other way, the driver asks the workers to stop, and the first worker hears
of it in the answer to its own posts.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

from pipelines.job import say
from pipelines.progress import Progress

POST_EVERY_S = 0.5
READ_EVERY_S = 0.5


class Board:
    """The latest news; a Ray actor."""

    def __init__(self) -> None:
        self._news: dict[str, Any] = {}
        self._lines: list[str] = []
        self._failure = ""
        self._stop_asked = False

    def post(self, news: dict[str, Any]) -> bool:
        """Returns whether the workers are asked to stop."""
        self._news = news
        return self._stop_asked

    def say(self, line: str) -> None:
        self._lines.append(line)

    def fail(self, reason: str) -> None:
        self._failure = reason

    def ask_to_stop(self) -> None:
        self._stop_asked = True

    def read(self, lines_known: int = 0) -> tuple[dict[str, Any], list[str]]:
        """The latest figures, and the lines after the first `lines_known`."""
        return self._news, self._lines[lines_known:]

    def failure(self) -> str:
        """Why training cannot go on; empty when it can."""
        return self._failure


def start_board() -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On the driver's node: a node that dies with its workers does not take the board along.
    node = ray.get_runtime_context().get_node_id()
    here = NodeAffinitySchedulingStrategy(node, soft=True)
    return ray.remote(Board).options(num_cpus=0, scheduling_strategy=here).remote()


def failure_on(board: Any) -> str:
    """Why training cannot go on; empty when it can, or the board was lost (the checkpoints tell
    then how far it came)."""
    import ray

    try:
        return str(ray.get(board.failure.remote()))
    except ray.exceptions.RayError:
        return ""


class Channel(Protocol):
    """The worker's side."""

    @property
    def stop_asked(self) -> bool:
        """Whether the job asked the workers to save and stop. May lag by a post or two."""
        ...

    def post(self, step: int, figures: dict[str, Any], *, at_once: bool = False) -> None:
        """The newest figures; seldom sent, so call it at every step."""
        ...

    def say(self, line: str) -> None:
        """A line for the person watching."""
        ...

    def fail(self, reason: str) -> None:
        """Training ends here, before its last step, and trying again would not help."""
        ...


class BoardChannel:
    """A channel through the board's actor. Figures and lines are sent off without waiting."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self._posted_s = 0.0
        self._answer: Any = None
        self._stop_asked = False

    @property
    def stop_asked(self) -> bool:
        import ray

        if self._answer is not None and ray.wait([self._answer], timeout=0)[0]:
            # A lost board is the driver's business; training itself needs none.
            with contextlib.suppress(ray.exceptions.RayError):
                self._stop_asked |= ray.get(self._answer)
            self._answer = None
        return self._stop_asked

    def post(self, step: int, figures: dict[str, Any], *, at_once: bool = False) -> None:
        now_s = time.monotonic()
        if at_once or now_s - self._posted_s >= POST_EVERY_S:
            self._posted_s = now_s
            self._answer = self._board.post.remote({"step": step, "figures": figures})

    def say(self, line: str) -> None:
        self._board.say.remote(line)

    def fail(self, reason: str) -> None:
        import ray

        ray.get(self._board.fail.remote(reason))


@contextlib.contextmanager
def shown_progress(
    board: Any, first_step: int, last_step: int, description: str, stop: threading.Event
) -> Iterator[None]:
    """Shows what is posted and said while the block runs; passes `stop` on to the workers."""
    ended = threading.Event()
    with Progress(last_step - first_step, "steps", description) as progress:
        follower = _Follower(board, first_step, progress, ended, stop)
        thread = threading.Thread(target=follower.run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join(timeout=10)


class _Follower:
    """Reads the board until the end, and once more after it."""

    def __init__(
        self,
        board: Any,
        first_step: int,
        progress: Progress,
        ended: threading.Event,
        stop: threading.Event,
    ) -> None:
        self._board, self._first_step, self._progress = board, first_step, progress
        self._ended, self._stop = ended, stop
        self._lines_known = 0
        self._asked = False

    def run(self) -> None:
        while True:
            last_look = self._ended.wait(READ_EVERY_S)
            self._look()
            if last_look:
                return

    def _look(self) -> None:
        import ray

        try:
            if self._stop.is_set() and not self._asked:
                ray.get(self._board.ask_to_stop.remote(), timeout=5)
                self._asked = True
            news, lines = ray.get(self._board.read.remote(self._lines_known), timeout=5)
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
            return  # a busy or ending cluster: the line just stands still
        self._lines_known += len(lines)
        for line in lines:
            say(line)
        if news:
            # After a lost worker the steps start again at the last checkpoint: stand still, too.
            moved = max(0, news["step"] - self._first_step - self._progress.done)
            self._progress.advance(moved, **news["figures"])
