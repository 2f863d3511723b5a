"""Very many small records in next to no memory.

A file of the footage is a kilobyte as objects. Packed by the hundreds and compressed it is less
than a tenth of that, names and all, and where they are many that lies in a temporary file. Who
walks through them, or takes neighbours, hardly notices.
"""

from __future__ import annotations

import tempfile
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Generic, TypeVar, overload

import msgpack

from pipelines.curation.mapped import PREFIX, SMALL_BYTES, where_it_is_full

Item = TypeVar("Item")

CHUNK_ITEMS = 256
#: Unpacked at a time, for those who come back to what they have just passed.
HELD_CHUNKS = 64


def pack(plain: Any) -> bytes:
    """Lists, numbers and texts; also names that are not UTF-8, as the system gives them."""
    return bytes(msgpack.packb(plain, unicode_errors="surrogateescape"))


def unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, unicode_errors="surrogateescape")


class Packed(Sequence[Item], Generic[Item]):
    """The items in their order. `to_plain` makes one into what `pack` takes, `of_plain` back."""

    def __init__(
        self,
        items: Iterable[Item],
        to_plain: Callable[[Item], Any],
        of_plain: Callable[[Any], Item],
    ) -> None:
        self._of_plain = of_plain
        self._file = tempfile.SpooledTemporaryFile(SMALL_BYTES, prefix=PREFIX)  # noqa: SIM115
        self._starts = array("q", [0])
        self._held: OrderedDict[int, list[Item]] = OrderedDict()
        self._len = 0
        remaining = iter(items)
        while some := [to_plain(item) for item in islice(remaining, CHUNK_ITEMS)]:
            with where_it_is_full():
                self._file.write(zlib.compress(pack(some), 1))
            self._starts.append(self._file.tell())
            self._len += len(some)

    def __len__(self) -> int:
        return self._len

    def __iter__(self) -> Iterator[Item]:
        for number in range(len(self._starts) - 1):
            yield from self._chunk(number)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...

    def __getitem__(self, index: int | slice) -> Item | list[Item]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._len))]
        at = index + self._len if index < 0 else index
        if not 0 <= at < self._len:
            raise IndexError(index)
        return self._chunk(at // CHUNK_ITEMS)[at % CHUNK_ITEMS]

    def _chunk(self, number: int) -> list[Item]:
        if number not in self._held:
            while len(self._held) >= HELD_CHUNKS:
                self._held.popitem(last=False)
            start, end = self._starts[number : number + 2]
            self._file.seek(start)
            plain = unpack(zlib.decompress(self._file.read(end - start)))
            self._held[number] = [self._of_plain(one) for one in plain]
        self._held.move_to_end(number)
        return self._held[number]
