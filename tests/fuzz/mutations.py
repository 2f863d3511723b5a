"""Seeded damage to the bytes of real files: what disks, networks and strangers do to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

NEAR_HEAD_BYTES = 4096
_BOX = re.compile(
    rb"ftyp|moov|trak|mdia|minf|stbl|stsd|stts|stsc|stsz|stco|co64|stss|ctts|elst|dref|avcC|mvhd"
    rb"|tkhd|mdhd|hdlr|uuid|RIFF|LIST|avih|strh|strf|idx1|movi|IHDR|IDAT|iCCP|zTXt|eXIf|VP8[ LX]"
)
_EXTREMES = tuple(
    value.to_bytes(width, order)
    for width in (1, 2, 4, 8)
    for value in (0, 1, (1 << 8 * width - 1) - 1, 1 << 8 * width - 1, (1 << 8 * width) - 1)
    for order in ("big", "little")
)

Change = Callable[[bytearray, Sequence[bytes], np.random.Generator], None]


def mutated(data: bytes, others: Sequence[bytes], rng: np.random.Generator) -> bytes:
    """One to six changes; `others` are whole files that pieces are taken from."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 7))):
        CHANGES[int(rng.integers(len(CHANGES)))](out, others, rng)
        if not out:
            break
    return bytes(out)


def _place(out: bytearray, rng: np.random.Generator) -> int:
    """Often near the head, where containers keep what they are."""
    within = min(len(out), NEAR_HEAD_BYTES) if rng.random() < 0.5 else len(out)
    return int(rng.integers(within))


def _length(rng: np.random.Generator) -> int:
    return int(2 ** rng.uniform(0, 12))


def flip_a_bit(out: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> None:
    out[_place(out, rng)] ^= 1 << int(rng.integers(8))


def overwrite(out: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> None:
    at, length = _place(out, rng), _length(rng)
    out[at : at + length] = rng.bytes(length)


def blank(out: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> None:
    at, length = _place(out, rng), _length(rng)
    out[at : at + length] = bytes(min(length, len(out) - at))


def drop(out: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> None:
    at = _place(out, rng)
    del out[at : at + _length(rng)]


def repeat(out: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> None:
    at, length = _place(out, rng), _length(rng)
    out[at:at] = out[at : at + length]


def cut_off(out: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> None:
    del out[int(rng.integers(1, len(out) + 1)) :]


def extreme_number(out: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> None:
    value = _EXTREMES[int(rng.integers(len(_EXTREMES)))]
    at = _place(out, rng)
    out[at : at + len(value)] = value


def box_length(out: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> None:
    """The length that stands before or behind the name of a box or chunk."""
    names = list(_BOX.finditer(bytes(out)))
    if not names:
        return extreme_number(out, others, rng)
    name = names[int(rng.integers(len(names)))]
    at = name.start() - 4 if name.start() >= 4 and rng.random() < 0.6 else name.end()
    if rng.random() < 0.5:
        value = _EXTREMES[int(rng.integers(len(_EXTREMES)))]
        out[at : at + len(value)] = value
    else:
        near = int.from_bytes(out[at : at + 4], "big") + int(rng.integers(-64, 65))
        out[at : at + 4] = (near % (1 << 32)).to_bytes(4, "big")


def rename_a_box(out: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> None:
    names = list(_BOX.finditer(bytes(out)))
    if len(names) > 1:
        a, b = rng.choice(len(names), 2, replace=False)
        out[names[a].start() : names[a].start() + 4] = names[b][0]


def other_head(out: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> None:
    other = others[int(rng.integers(len(others)))]
    length = _length(rng)
    out[:length] = other[:length]


def splice(out: bytearray, others: Sequence[bytes], rng: np.random.Generator) -> None:
    other = others[int(rng.integers(len(others)))]
    at, start = _place(out, rng), int(rng.integers(len(other)))
    out[at:] = other[start:] if rng.random() < 0.3 else out[at:] + other[start : start + 4096]


CHANGES: tuple[Change, ...] = (
    *(flip_a_bit, flip_a_bit, overwrite, blank, drop, repeat, cut_off, extreme_number),
    *(extreme_number, box_length, box_length, rename_a_box, other_head, splice),
)
