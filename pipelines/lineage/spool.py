"""Records on their way to a tracking server that may be slow, locked or gone.

Tracking describes a job and must never end it: what cannot be delivered waits in memory, in
order, and is tried again, at growing intervals so that a dead server costs little time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)

FIRST_RETRY_S = 5.0
LAST_RETRY_S = 120.0
FAILURES_PER_FLUSH = 2


@dataclass(frozen=True)
class Record:
    """`deliver` may run again after a failure half-way, so it must be safe to repeat.

    `ordered`: later records wait for it. Files are not ordered: a broken artifact store does
    not hold back the metrics.
    """

    what: str
    deliver: Callable[[], None]
    ordered: bool = True


class Spool:
    """Delivers records in order; keeps those that failed, unless `is_hopeless(error)`."""

    def __init__(
        self,
        is_hopeless: Callable[[Exception], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._is_hopeless = is_hopeless
        self._clock = clock
        self._waiting: deque[Record] = deque()
        self._next_try_s = 0.0
        self._pause_s = FIRST_RETRY_S
        self._warned = False
        self._lock = threading.RLock()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def submit(self, record: Record) -> None:
        """Delivers now if it can; never raises."""
        with self._lock:
            self._waiting.append(record)
            self.flush()

    def flush(self, *, at_once: bool = False) -> None:
        """Tries what waits. Inside a pause after a failure it does nothing, unless `at_once`."""
        with self._lock:
            if not self._waiting or (self._clock() < self._next_try_s and not at_once):
                return
            failures = self._deliver_waiting()
            if failures:
                self._next_try_s = self._clock() + self._pause_s
                self._pause_s = min(2 * self._pause_s, LAST_RETRY_S)
            else:
                self._next_try_s, self._pause_s = 0.0, FIRST_RETRY_S

    def _deliver_waiting(self) -> int:
        failures = 0
        kept: deque[Record] = deque()
        while self._waiting and failures < FAILURES_PER_FLUSH:
            record = self._waiting.popleft()
            try:
                record.deliver()
            except Exception as error:
                if self._is_hopeless(error):
                    logger.warning("tracking refused %s: %s", record.what, one_line(error))
                    continue
                failures += 1
                kept.append(record)
                self._warn_once(record.what, error)
                if record.ordered:
                    break
        self._waiting = kept + self._waiting
        return failures

    def _warn_once(self, what: str, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "tracking could not take %s (%s); the job goes on, records wait in memory",
                what,
                one_line(error),
            )

    def close(self) -> None:
        """The last attempt. Says what was lost."""
        self.flush(at_once=True)
        if self._waiting:
            names = ", ".join(sorted({record.what for record in self._waiting}))
            logger.warning("tracking lost %d records: %s", len(self._waiting), names)


def one_line(error: BaseException, limit: int = 300) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
