"""One progress line that reads well on a terminal and in a job's log."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

LOG_EVERY_S = 5.0


class Progress:
    """A bar on a terminal; in a log file, one complete line every few seconds.

    `advance(n, clips=12, speed="31x")` moves it and shows the given figures at its end.
    """

    def __init__(self, total: int, unit: str, description: str) -> None:
        self.total, self.unit, self.description = total, unit, description
        self.done = 0
        self.figures: dict[str, Any] = {}
        self._started_s = self._said_s = time.monotonic()
        self._bar = (
            tqdm(total=total, unit=f" {unit}", desc=description, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def advance(self, n: int = 1, **figures: Any) -> None:
        self.done += n
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
        if self._bar is not None:
            self._bar.close()
        else:
            print(self.line(), file=sys.stderr, flush=True)


def in_words(seconds: float) -> str:
    """`9 s`, `1 min 12 s`, `3 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
