"""The index of latents as plain columns, sorted by clip id: quick to search and small, also for
tens of millions of clips."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.training.randomness import keys_of

KEY_DIGITS = 16  # of a clip id go into its key (randomness.keys_of)


@dataclass(frozen=True)
class ClipRows:
    """A row is a clip; everything is in the order of clip ids."""

    index: pa.Table
    keys: np.ndarray
    pack_names: list[str]
    pack_numbers: np.ndarray
    first_rows: np.ndarray
    num_frames: np.ndarray
    text_rows: np.ndarray
    short_text_rows: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def of(cls, index: pa.Table) -> ClipRows:
        """`index`: index.parquet, in any order."""
        names = ("clip_id", "source_id", "pack", "tiers", "first_row", "num_frames", "text_row",
                 "short_text_row")  # fmt: skip
        index = _sorted_by_id(index.select(names).combine_chunks())
        packs = pc.dictionary_encode(index["pack"]).combine_chunks()
        in_order = pa.array(packs.dictionary).to_pylist()
        # Numbers go by name: they decide the reading order, and must not depend on that of rows.
        rank = np.argsort(np.argsort(np.array(in_order)))
        numbers = ("first_row", "num_frames", "text_row", "short_text_row")
        return cls(
            index,
            keys_of_column(index["clip_id"]),
            sorted(in_order),
            rank[packs.indices.to_numpy()].astype(np.int64),
            *(index[name].to_numpy().astype(np.int64) for name in numbers),
        )

    def clip_id(self, row: int) -> str:
        return str(self._ids[row].as_py())

    def source_id(self, row: int) -> str:
        return str(self._sources[row].as_py())

    def pack(self, row: int) -> str:
        return self.pack_names[self.pack_numbers[row]]

    def in_tier(self, tier: str) -> np.ndarray:
        """(n,) bool"""
        lists = self.index["tiers"].combine_chunks()
        parents = pc.list_parent_indices(lists).to_numpy()
        named = pc.equal(pc.list_flatten(lists), tier).to_numpy(zero_copy_only=False)
        found = np.zeros(len(self), dtype=bool)
        found[parents[named]] = True
        return found

    @cached_property
    def _ids(self) -> pa.Array:
        return self.index["clip_id"].combine_chunks()

    @cached_property
    def _sources(self) -> pa.Array:
        return self.index["source_id"].combine_chunks()


def keys_of_column(ids: pa.ChunkedArray) -> np.ndarray:
    """`randomness.keys_of` of a column, without a Python object for each id."""
    lengths = pc.binary_length(ids)
    least, most = (pc.min(lengths).as_py() or 0), (pc.max(lengths).as_py() or 0)
    if least != most or least < KEY_DIGITS:
        return keys_of(ids.to_pylist())
    keys = [_keys_of_digits(_characters(chunk, most)) for chunk in ids.chunks if len(chunk)]
    return np.concatenate(keys) if keys else np.empty(0, np.uint64)


def _characters(ids: pa.Array, width: int) -> np.ndarray:
    """(n, width) uint8 view of strings that are all `width` bytes long."""
    offset_bytes = 8 if pa.types.is_large_string(ids.type) else 4
    _, offsets, data = ids.buffers()
    first = int.from_bytes(
        offsets.slice(ids.offset * offset_bytes, offset_bytes).to_pybytes(), "little"
    )
    flat = np.frombuffer(data, np.uint8, count=len(ids) * width, offset=first)
    return flat.reshape(len(ids), width)


def _keys_of_digits(characters: np.ndarray) -> np.ndarray:
    """(n,) uint64 from (n, 16 or more) hexadecimal digits in ASCII. Raises ValueError on others."""
    keys = np.zeros(len(characters), np.uint64)
    for place in range(KEY_DIGITS):
        digits = _VALUE_OF_DIGIT[characters[:, place]]
        if (digits > 15).any():
            raise ValueError("a clip id that is not hexadecimal")
        keys = (keys << np.uint64(4)) | digits
    return keys


_VALUE_OF_DIGIT = np.full(256, 255, np.uint64)
for _value, _digit in enumerate("0123456789abcdef"):
    _VALUE_OF_DIGIT[ord(_digit)] = _VALUE_OF_DIGIT[ord(_digit.upper())] = _value


def _sorted_by_id(index: pa.Table) -> pa.Table:
    """By key, which is their order but where keys are equal: ten times quicker than by string."""
    keys = keys_of_column(index["clip_id"])
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    if (ordered[1:] == ordered[:-1]).any():
        return index.take(pc.sort_indices(index, [("clip_id", "ascending")]))
    return index.take(pa.array(order))
