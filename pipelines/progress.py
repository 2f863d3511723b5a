"""One progress line that reads well on a terminal and in a job's log."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

from tqdm import tqdm

LOG_EVERY_S = 5.0
#: Where nothing has ended for so long it is said; then after twice, four times as long, and so on.
QUIET_S = 120.0


class Progress:
    """A bar on a terminal; in a log file, one complete line every few seconds.

    `advance(n, clips=12, speed="31x")` moves it and shows the given figures at its end. Work that
    hangs is not silence: a line says how long nothing has ended.
    """

    def __init__(self, total: int, unit: str, description: str, quiet_s: float = QUIET_S) -> None:
        self.total, self.unit, self.description = total, unit, description
        self.done = 0
        self.figures: dict[str, Any] = {}
        self._started_s = self._said_s = self._moved_s = time.monotonic()
        self._quiet_s, self._is_over = quiet_s, threading.Event()
        self._bar = (
            tqdm(total=total, unit=f" {unit}", desc=description, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )
        threading.Thread(target=self._tell_of_quiet, daemon=True).start()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def advance(self, n: int = 1, **figures: Any) -> None:
        self.done += n
        self._moved_s = time.monotonic()
        self.figures.update(figures)
        if self._bar is not None:
            self._bar.update(n)
            self._bar.set_postfix(self.figures, refresh=False)
        elif time.monotonic() - self._said_s >= LOG_EVERY_S and self.done < self.total:
            self._said_s = time.monotonic()
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """e.g. `watching: 12/40 files, 31 s, 1 min 12 s left, clips 64`."""
        elapsed_s = time.monotonic() - self._started_s
        parts = [f"{self.description}: {self.done}/{self.total} {self.unit}", in_words(elapsed_s)]
        if 0 < self.done < self.total:
            left_s = elapsed_s / self.done * (self.total - self.done)
            parts.append(f"{in_words(left_s)} left")
        parts += [f"{name.replace('_', ' ')} {value}" for name, value in self.figures.items()]
        return ", ".join(parts)

    def close(self) -> None:
        self._is_over.set()
        if self._bar is not None:
            self._bar.close()
        else:
            print(self.line(), file=sys.stderr, flush=True)

    def _tell_of_quiet(self) -> None:
        moved_s, due_s = self._moved_s, self._quiet_s
        while not self._is_over.wait(moved_s + due_s - time.monotonic()):
            if moved_s != self._moved_s:
                moved_s, due_s = self._moved_s, self._quiet_s
                continue
            quiet = in_words(time.monotonic() - moved_s)
            tqdm.write(f"{self.line()}; nothing has ended for {quiet}", file=sys.stderr)
            sys.stderr.flush()
            due_s *= 2


def in_words(seconds: float) -> str:
    """`9 s`, `1 min 12 s`, `3 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
