"""Clip ids as 16 bytes each, where there are very many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ID_BYTES = 16


def packed_ids(ids: Sequence[str]) -> np.ndarray:
    """(N, 16) uint8 of ids in hex."""
    return np.frombuffer(bytes.fromhex("".join(ids)), np.uint8).reshape(-1, ID_BYTES)


def hex_ids(packed_NB: np.ndarray) -> list[str]:
    """Bytes of any width as hex, a text each."""
    width = 2 * packed_NB.shape[1]
    text = np.ascontiguousarray(packed_NB).tobytes().hex()
    return [text[at : at + width] for at in range(0, len(text), width)]


def order_keys(packed_NB: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keys for np.lexsort, the least first, that put ids in the order of their texts. (Of longer
    values the first 16 bytes count.)"""
    words_N2 = np.ascontiguousarray(packed_NB[:, :ID_BYTES]).view(">u8")
    return words_N2[:, 1].astype(np.uint64), words_N2[:, 0].astype(np.uint64)


def places_in_order(packed_NB: np.ndarray) -> np.ndarray:
    """The place of each id when all are sorted."""
    places = np.empty(len(packed_NB), np.int64)
    places[np.lexsort(order_keys(packed_NB))] = np.arange(len(packed_NB))
    return places
