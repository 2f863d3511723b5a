"""Finds the stored fingerprints that are like a given one, without comparing all pairs.

Up to `EXACT_COUNT` fingerprints every pair is compared. Beyond, each is described by a few hundred
signs: on which side of a random plane its digits lie. Two fingerprints with the angle a between
them disagree in a share a/pi of the signs. Sixteen tables hold the clips by some of those signs;
a query looks into its own place in each table and into the seven nearest ones (the signs it is
least sure of, turned round), drops what disagrees in too many signs, and the caller measures the
rest. Places grow in number with the clips, so a look-up costs about the same among a million as
among ten thousand.

What it may miss, among 300,000 (tests/benchmarks/duplicates_scale.py, limit 0.9): 1.0 % of the
pairs with a cosine of 0.90 to 0.92, 0.15 % of those to 0.95, none above. Sums are of whole numbers,
and the planes are fixed for ever: equal fingerprints give equal answers on every machine.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np

from pipelines.curation.mapped import zeros

EXACT_COUNT = 4096
_TABLES, _MAX_KEY_BITS, _UNSURE = 16, 20, 3
_PLANES = _TABLES * _MAX_KEY_BITS
_ROWS_AT_ONCE = 1 << 12  # of 6 KiB each while they are described


class FingerprintIndex:
    """Over a fixed set of fingerprints, (N, D) int8; those `add`ed can be found by `near`."""

    def __init__(self, digits_ND: np.ndarray, min_cosine: float) -> None:
        self._digits_ND = digits_ND
        self._count = len(digits_ND)
        self._added: list[int] = []
        self._exact = self._count <= EXACT_COUNT
        if not self._exact:
            self._lay_out(min_cosine)

    def add(self, number: int) -> None:
        if self._exact:
            self._added.append(number)
            return
        places = self._places_of(number)[:, 0]
        self._slots[self._starts[places] + self._filled[places]] = number
        self._filled[places] += 1

    def near(self, number: int) -> np.ndarray:
        """Numbers of added fingerprints, rising, that may be like this one."""
        if self._exact:
            return np.array(self._added, dtype=np.int64)
        places = self._places_of(number).reshape(-1)
        lengths = self._filled[places]
        ends = np.cumsum(lengths)
        offsets = np.repeat(self._starts[places] - ends + lengths, lengths)
        found = self._slots[offsets + np.arange(ends[-1])]
        differ = np.bitwise_count(self._signs_NW[found] ^ self._signs_NW[number])
        return np.unique(found[differ.sum(axis=1, dtype=np.int64) <= self._max_differ])

    def _lay_out(self, min_cosine: float) -> None:
        self._key_bits = min(_MAX_KEY_BITS, max(8, math.ceil(math.log2(self._count))))
        share = math.acos(min(1.0, max(-1.0, min_cosine))) / math.pi
        spread = math.sqrt(_PLANES * share * (1 - share))
        self._max_differ = math.ceil(_PLANES * share + 4 * spread)
        self._signs_NW = zeros((self._count, _PLANES // 64), np.uint64)
        self._keys_NT = zeros((self._count, _TABLES), np.int32)
        self._unsure_NTU = zeros((self._count, _TABLES, _UNSURE), np.uint8)
        planes_DP = _random_planes(self._digits_ND.shape[1], _PLANES)
        for first in range(0, self._count, _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            self._describe(rows, self._digits_ND[rows].astype(np.float32) @ planes_DP)
        places = 1 << self._key_bits
        kind = np.int32 if self._keys_NT.size < 1 << 31 else np.int64
        self._starts = zeros(_TABLES * places, kind)
        for table in range(_TABLES):  # one by one, in less memory
            room = np.bincount(self._keys_NT[:, table], minlength=places)
            first = table * places
            self._starts[first : first + places] = table * self._count + np.cumsum(room) - room
        self._keys_NT += (np.arange(_TABLES) << self._key_bits).astype(np.int32)
        self._filled = zeros(len(self._starts), np.int32)
        self._slots = zeros(self._keys_NT.size, np.int32)

    def _describe(self, rows: slice, sides_RP: np.ndarray) -> None:
        """Signs, keys and least sure signs of some rows, from their distances to the planes."""
        signs_RP = sides_RP > 0
        self._signs_NW[rows] = np.packbits(signs_RP, axis=1).view(np.uint64)
        of_table = (len(sides_RP), _TABLES, _MAX_KEY_BITS)
        keyed_RTB = signs_RP.reshape(of_table)[..., : self._key_bits]
        self._keys_NT[rows] = keyed_RTB @ (1 << np.arange(self._key_bits))
        sure_RTB = np.abs(sides_RP).reshape(of_table)[..., : self._key_bits]
        order_RTB = np.argsort(sure_RTB, axis=-1, kind="stable")
        self._unsure_NTU[rows] = order_RTB[..., :_UNSURE]

    def _places_of(self, number: int) -> np.ndarray:
        """(tables, 8): the place of its key, and those with unsure signs turned round."""
        flips_TU = 1 << self._unsure_NTU[number].astype(np.int64)
        return self._keys_NT[number][:, None] ^ (flips_TU @ _TURNS_UV)


_TURNS_UV = np.array([[v >> u & 1 for v in range(1 << _UNSURE)] for u in range(_UNSURE)])


def _random_planes(size: int, count: int) -> np.ndarray:
    """(size, count) float32 of -1 and 1: the same for ever, whatever the random library does."""
    needed = -(-size * count // 256)
    drawn = b"".join(hashlib.sha256(f"plane {n}".encode()).digest() for n in range(needed))
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8))[: size * count]
    return bits.reshape(size, count).astype(np.float32) * 2 - 1
