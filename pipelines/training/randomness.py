"""Randomness as a pure function of position.

Every random choice of training is drawn from a stream named by what it is for and where in the
run it happens. Nothing depends on what was drawn before, so a run that stops at any step and goes
on, there or on another machine, draws what an undisturbed one would have drawn.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream(*parts: int | str) -> int:
    """A 63-bit seed for the stream with this name. Parts are told apart: (1, 23) is not (12, 3)."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def keys_of(ids: list[str]) -> np.ndarray:
    """(n,) uint64 from hexadecimal ids, which are hashes already: their first 16 digits."""
    return np.array([int(i[:16], 16) for i in ids], dtype=np.uint64)


def uniform(keys: np.ndarray, *parts: int | str) -> np.ndarray:
    """(n,) float64 in [0, 1): one draw per uint64 key from the stream named by `parts`.

    SplitMix64's finalizer (Steele et al. 2014) over key + stream: the same for a clip whatever
    other clips there are, and fast enough for an epoch of tens of millions of clips.
    """
    with np.errstate(over="ignore"):
        x = keys.astype(np.uint64) + np.uint64(stream(*parts)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) / float(1 << 53)
