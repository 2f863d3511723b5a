"""Arrays as long as a dataset, in temporary files that the system may take out of memory.

The driver knows a few numbers of every clip, and goes through them in order. Mapped from a file
they are in memory while there is some to spare; where it is short, what was not used for long waits
on the disk. The files have no names: they go with the array, or with the process. Small arrays are
ordinary ones.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

SMALL_BYTES = 1 << 20
#: How many rows to work on at a time where there are temporary values for each.
ROWS_AT_ONCE = 1 << 16
PREFIX = "i2vgen-rows-"


def zeros(shape: int | tuple[int, ...], kind: Any) -> np.ndarray:
    """Raises OSError where the disk cannot hold it; once made, it can be filled."""
    shape = (shape,) if isinstance(shape, int) else shape
    size_bytes = math.prod(shape) * np.dtype(kind).itemsize
    if not size_bytes or size_bytes < SMALL_BYTES:
        return np.zeros(shape, kind)
    with where_it_is_full(), tempfile.TemporaryFile(prefix=PREFIX) as file:
        # Room now: a disk that is full when a page is written kills the process with SIGBUS.
        os.posix_fallocate(file.fileno(), 0, size_bytes)
        return np.asarray(np.memmap(file, kind, "r+", shape=shape))


@contextmanager
def where_it_is_full() -> Iterator[None]:
    """What the system says of a file without a name names its folder, which has to be mended."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from error


def full(count: int, value: Any, kind: Any) -> np.ndarray:
    found = zeros(count, kind)
    found[:] = value
    return found


def mapped(values: np.ndarray) -> np.ndarray:
    """The same values, to be changed at will, out of memory."""
    found = zeros(values.shape, values.dtype)
    found[:] = values
    return found


def stretches(count: int) -> Iterator[slice]:
    """All rows in order, ROWS_AT_ONCE at a time."""
    for first in range(0, count, ROWS_AT_ONCE):
        yield slice(first, min(first + ROWS_AT_ONCE, count))


class Growing:
    """An array to which rows are added at its end; `width`: values in a row, of which there may
    be many."""

    def __init__(self, kind: Any, width: int | None = None) -> None:
        self._kind, self._width = np.dtype(kind), width
        self._file = tempfile.SpooledTemporaryFile(SMALL_BYTES, prefix=PREFIX)  # noqa: SIM115

    def add(self, rows: np.ndarray) -> None:
        with where_it_is_full():
            self._file.write(np.asarray(rows, self._kind).tobytes())

    def whole(self) -> np.ndarray:
        """All rows; nothing can be added any more."""
        with self._file as file:
            if not file.tell() or file.tell() < SMALL_BYTES:
                file.seek(0)
                values = np.frombuffer(bytearray(file.read()), self._kind)
            else:
                file.flush()
                values = np.asarray(np.memmap(file, self._kind, "r+"))
        return values if self._width is None else values.reshape(-1, self._width)
