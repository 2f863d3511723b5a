"""Sorting more lines than memory should hold: sorted runs in temporary files, merged at the end."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import IO

HELD_BYTES = 64 << 20
_LENGTH_BYTES = 4


class SortedLines:
    """Takes lines (any bytes) in any order, gives them in order, once."""

    def __init__(self, held_bytes: int = HELD_BYTES) -> None:
        self._held_bytes = held_bytes
        self._files = ExitStack()
        self._runs: list[IO[bytes]] = []
        self._lines: list[bytes] = []
        self._size_bytes = 0

    def add(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self._lines.append(line)
            self._size_bytes += len(line)
            if self._size_bytes >= self._held_bytes:
                self._write_run()

    def in_order(self) -> Iterator[bytes]:
        self._lines.sort()
        with self._files:
            yield from heapq.merge(*(_lines_of(run) for run in self._runs), self._lines)

    def _write_run(self) -> None:
        run = self._files.enter_context(tempfile.TemporaryFile(prefix="i2vgen-sort-"))  # noqa: SIM115
        for line in sorted(self._lines):
            run.write(len(line).to_bytes(_LENGTH_BYTES, "big") + line)
        self._runs.append(run)
        self._lines, self._size_bytes = [], 0


def _lines_of(run: IO[bytes]) -> Iterator[bytes]:
    run.seek(0)
    while header := run.read(_LENGTH_BYTES):
        yield run.read(int.from_bytes(header, "big"))
