"""Clip ids as 16 bytes each, where there are very many."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

import numpy as np

from pipelines.curation.mapped import ROWS_AT_ONCE, Growing, stretches, zeros

ID_BYTES = 16
_IS_ID = re.compile(f"[0-9a-f]{{{2 * ID_BYTES}}}")


def packed_ids(ids: Sequence[str]) -> np.ndarray:
    """(N, 16) uint8 of ids in hex."""
    return np.frombuffer(bytes.fromhex("".join(ids)), np.uint8).reshape(-1, ID_BYTES)


def sortable(packed_NB: np.ndarray) -> np.ndarray:
    """The same ids, a value each, in the order of their texts."""
    return np.ascontiguousarray(packed_NB).view(f"S{ID_BYTES}")[:, 0]


class IdSet:
    """A set of very many ids (in hex; anything else is none), on disk where it is large."""

    def __init__(self, ids: Iterable[str]) -> None:
        known, remaining = Growing(np.uint8, ID_BYTES), filter(_IS_ID.fullmatch, ids)
        while some := list(itertools.islice(remaining, ROWS_AT_ONCE)):
            known.add(packed_ids(some))
        self._sorted_N = sortable(known.whole())
        self._sorted_N.sort()

    def __len__(self) -> int:
        """Counting what was given twice twice."""
        return len(self._sorted_N)

    def __contains__(self, one: object) -> bool:
        if not (isinstance(one, str) and _IS_ID.fullmatch(one)):
            return False
        value = sortable(packed_ids([one]))
        place = int(np.searchsorted(self._sorted_N, value)[0])
        return place < len(self._sorted_N) and bool(self._sorted_N[place] == value[0])


def hex_ids(packed_NB: np.ndarray) -> list[str]:
    """Bytes of any width as hex, a text each."""
    width = 2 * packed_NB.shape[1]
    text = np.ascontiguousarray(packed_NB).tobytes().hex()
    return [text[at : at + width] for at in range(0, len(text), width)]


def order_keys(packed_NB: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys for np.lexsort, the least first, that put the ids in these rows in the order of their
    texts. (Of longer values the first 16 bytes count.)"""
    low, high = (zeros(len(rows), np.uint64) for _ in range(2))
    for some in stretches(len(rows)):
        words_R2 = np.ascontiguousarray(packed_NB[rows[some], :ID_BYTES]).view(">u8")
        high[some], low[some] = words_R2[:, 0], words_R2[:, 1]
    return low, high


def places_in_order(packed_NB: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The place of the id of each of the rows when they are sorted."""
    places = zeros(len(rows), np.int64)
    places[np.lexsort(order_keys(packed_NB, rows))] = np.arange(len(rows))
    return places
