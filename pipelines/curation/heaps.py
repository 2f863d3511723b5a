"""Reading single rows and embeddings out of the heaps of parts (judged_parts.py)."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import ExitStack
from typing import BinaryIO

from pipelines.curation.judged_parts import part_path
from pipelines.curation.work import Work

OPEN_AT_ONCE = 256


class Heaps:
    """Of one run. Holds the files open that were read last; those of an object store as copies."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._open: OrderedDict[str, tuple[BinaryIO, ExitStack]] = OrderedDict()

    def __enter__(self) -> Heaps:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            self._close_oldest()

    def read(self, part: str, start: int, size_bytes: int) -> bytes:
        file = self._file(part)
        file.seek(start)
        return file.read(size_bytes)

    def _file(self, part: str) -> BinaryIO:
        if part not in self._open:
            while len(self._open) >= OPEN_AT_ONCE:
                self._close_oldest()
            stack = ExitStack()
            path = stack.enter_context(
                self._work.scratch.as_local_file(part_path(self._work, part, "heap"))
            )
            self._open[part] = (stack.enter_context(path.open("rb")), stack)
        self._open.move_to_end(part)
        return self._open[part][0]

    def _close_oldest(self) -> None:
        _, (_, stack) = self._open.popitem(last=False)
        stack.close()
