"""How much of a process's time goes into some of its functions, from the outermost call on."""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

RECORDS = ("log_metrics", "log_params", "set_tags", "log_input_dataset", "log_output_model",
           "log_input_model", "log_artifact", "log_dict", "close")  # fmt: skip
RECORDING, BESIDE = "records of the run", "delivery, in its own thread"


class Clock:
    """Seconds and processor seconds of wrapped functions by title; a nested call counts for the
    outermost alone."""

    def __init__(self) -> None:
        self.wall_s: dict[str, float] = defaultdict(float)
        self.cpu_s: dict[str, float] = defaultdict(float)
        self._inside = threading.local()

    @contextlib.contextmanager
    def timing(self, title: str) -> Iterator[None]:
        if getattr(self._inside, "now", False):
            yield
            return
        self._inside.now = True
        wall_s, cpu_s = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.wall_s[title] += time.perf_counter() - wall_s
            self.cpu_s[title] += time.thread_time() - cpu_s
            self._inside.now = False

    def wrap(self, owner: Any, name: str, title: str) -> None:
        """Replaces a function of a module, or a method, by one that is timed."""
        given = inspect.getattr_static(owner, name)
        function = given.__func__ if isinstance(given, classmethod) else given

        @functools.wraps(function)
        def timed(*arguments: Any, **named: Any) -> Any:
            with self.timing(title):
                result = function(*arguments, **named)
            if isinstance(result, AbstractContextManager) and name == "run":
                return self._timed_block(result, title)
            return result

        setattr(owner, name, classmethod(timed) if isinstance(given, classmethod) else timed)

    @contextlib.contextmanager
    def _timed_block(self, block: AbstractContextManager[Any], title: str) -> Iterator[Any]:
        """Entering and leaving it, not what is done in it."""
        with contextlib.ExitStack() as stack:
            with self.timing(title):
                entered = stack.enter_context(block)
            yield entered
            with self.timing(title):
                stack.close()

    def wrap_tracking(self) -> None:
        from pipelines.lineage.spool.thread import Delivery
        from pipelines.lineage.tracked.run import Run
        from pipelines.lineage.tracking import Tracker

        for name in ("open", "run"):
            self.wrap(Tracker, name, RECORDING)
        for name in RECORDS:
            self.wrap(Run, name, RECORDING)
        self.wrap(Delivery, "_round", BESIDE)

    def found(self) -> dict[str, list[float]]:
        """By title: seconds of the clock, and of the processor. What runs beside the job does not
        hold it up, so its seconds of the clock are none."""
        return {
            title: [0.0 if title == BESIDE else self.wall_s[title], self.cpu_s[title]]
            for title in self.wall_s
        }
