"""Files that a disk or a network has damaged: a bit flipped, an end cut off, bytes appended."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

KINDS = ("flip", "cut", "append")


@contextlib.contextmanager
def damaged(path: Path, rng: random.Random, kind: str = "flip") -> Iterator[str]:
    """Damages the file for the block, at a place drawn from `rng`; gives what was done in words."""
    whole = path.read_bytes()
    data = bytearray(whole)
    if kind == "flip":
        place, bit = rng.randrange(len(data)), rng.randrange(8)
        data[place] ^= 1 << bit
        done = f"{path.name}: bit {bit} of byte {place} flipped"
    elif kind == "cut":
        left = rng.randrange(len(data))
        del data[left:]
        done = f"{path.name}: cut after {left} of {len(whole)} bytes"
    else:
        data += rng.randbytes(rng.randint(1, 64))
        done = f"{path.name}: {len(data) - len(whole)} bytes appended"
    # In place, as damage comes: a hard link to the file sees it as well.
    path.write_bytes(data)
    try:
        yield done
    finally:
        path.write_bytes(whole)
