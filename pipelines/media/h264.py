"""What an H.264 stream says outside its pictures: units, parameter sets, MP4's header of them.

After ITU-T H.264: 7.3.1 (units), 7.3.2.1 and annex E.1 (sequence parameter sets), annex B (start
codes), and ISO/IEC 14496-15, 5.3.3.1 (the `avcC` box). Only what a cut must know is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

SLICE, IDR_SLICE = 1, 5
SEQUENCE_SET, PICTURE_SET = 7, 8
MAX_SEQUENCE_SETS = 32  # ids 0..31
LENGTH_BYTES = 4  # before each unit, in what we write

#: Profiles whose sequence parameter set carries chroma format and bit depth.
_HIGH_PROFILES = frozenset((100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135))
_EXTENDED_SAR = 255
_SQUARE_OR_UNSAID = frozenset((0, 1))


@dataclass(frozen=True)
class SequenceSet:
    """A sequence parameter set. `max_reordered` is None where the stream does not say.

    `width_px` x `height_px` is the picture inside the stream's own cropping; `constraints` are the
    eight bits after the profile.
    """

    set_id: int
    profile: int
    constraints: int
    level: int
    chroma_format: int
    bit_depth: int
    progressive: bool
    width_px: int
    height_px: int
    square_pixels: bool = True
    max_reordered: int | None = None


def unit_type(unit: bytes) -> int:
    return unit[0] & 31


def units_of(data: bytes, length_bytes: int) -> list[bytes]:
    """The units of a packet; `length_bytes` 0: they stand between start codes.

    Raises ValueError on a unit that does not fit.
    """
    if not length_bytes:
        parts = data.split(b"\0\0\1")
        return [unit for part in parts[1:] if (unit := part.rstrip(b"\0"))]
    units, at = [], 0
    while at < len(data):
        start = at + length_bytes
        at = start + int.from_bytes(data[at:start], "big")
        if at > len(data) or at == start:
            raise ValueError("a unit does not fit its packet")
        units.append(data[start:at])
    return units


def with_lengths(units: Iterable[bytes]) -> bytes:
    """The units as an MP4 sample holds them."""
    return b"".join(len(unit).to_bytes(LENGTH_BYTES, "big") + unit for unit in units)


def sets_of_extradata(extradata: bytes) -> tuple[list[bytes], int]:
    """(parameter sets, bytes of a unit's length or 0 for start codes) of a stream's header."""
    if not extradata or extradata[0] != 1:
        return units_of(extradata, 0), 0
    if len(extradata) < 7:
        raise ValueError("header too short")
    units, at = [], 5
    for mask in (31, 255):
        count, at = extradata[at] & mask, at + 1
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2], "big")
            units.append(extradata[at + 2 : at + 2 + size])
            at += 2 + size
    if at > len(extradata) or not all(units):
        raise ValueError("parameter sets do not fit their header")
    return units, (extradata[4] & 3) + 1


def header_of(sequence_sets: Sequence[bytes], picture_sets: Sequence[bytes]) -> bytes:
    """The `avcC` box's bytes: all the sets of a track, and what a decoder must be able to do."""
    read = [read_sequence_set(unit) for unit in sequence_sets]
    constraints = 255
    for one in read:
        constraints &= one.constraints
    profile, level = max(one.profile for one in read), max(one.level for one in read)
    header = bytes((1, profile, constraints, level, 0xFC | LENGTH_BYTES - 1))
    header += bytes((0xE0 | len(sequence_sets),)) + _sized(sequence_sets)
    header += bytes((len(picture_sets),)) + _sized(picture_sets)
    if profile in _HIGH_PROFILES:
        depth = max(one.bit_depth for one in read) - 8
        header += bytes((0xFC | read[0].chroma_format, 0xF8 | depth, 0xF8 | depth, 0))
    return header


def _sized(units: Sequence[bytes]) -> bytes:
    return b"".join(len(unit).to_bytes(2, "big") + unit for unit in units)


def picture_set_id(unit: bytes) -> int:
    return _Bits(unit[1:16]).ue()


def begins_picture(unit: bytes) -> bool:
    """Whether a slice is the first of its picture (first_mb_in_slice is 0)."""
    return len(unit) > 1 and unit[1] >= 128


def read_sequence_set(unit: bytes) -> SequenceSet:
    """Raises ValueError on one that ends early."""
    bits = _Bits(unit[1:])
    profile, constraints, level = bits.u(8), bits.u(8), bits.u(8)
    set_id = bits.ue()
    chroma_format, bit_depth = 1, 8
    if profile in _HIGH_PROFILES:
        chroma_format = bits.ue()
        if chroma_format == 3:
            bits.u(1)
        bit_depth = 8 + max(bits.ue(), bits.ue())
        bits.u(1)
        if bits.u(1):
            _skip_scaling_lists(bits, 12 if chroma_format == 3 else 8)
    bits.ue()
    _skip_order_count(bits)
    bits.ue()
    bits.u(1)
    width_blocks, height_units = bits.ue() + 1, bits.ue() + 1
    progressive = bool(bits.u(1))
    if not progressive:
        bits.u(1)
    bits.u(1)
    left, right, top, bottom = [bits.ue() for _ in range(4)] if bits.u(1) else [0] * 4
    rows = 1 if progressive else 2
    across = 2 if chroma_format in (1, 2) else 1
    down = rows * (2 if chroma_format == 1 else 1)
    square, reordered = _read_usability(bits) if bits.u(1) else (True, None)
    return SequenceSet(
        set_id=set_id,
        profile=profile,
        constraints=constraints,
        level=level,
        chroma_format=chroma_format,
        bit_depth=bit_depth,
        progressive=progressive,
        width_px=16 * width_blocks - across * (left + right),
        height_px=16 * rows * height_units - down * (top + bottom),
        square_pixels=square,
        max_reordered=reordered,
    )


def _skip_scaling_lists(bits: _Bits, count: int) -> None:
    for index in range(count):
        if not bits.u(1):
            continue
        last = following = 8
        for _ in range(16 if index < 6 else 64):
            if following:
                following = (last + bits.se()) % 256
            last = following or last


def _skip_order_count(bits: _Bits) -> None:
    kind = bits.ue()
    if kind == 0:
        bits.ue()
    elif kind == 1:
        bits.u(1)
        bits.se()
        bits.se()
        for _ in range(bits.ue()):
            bits.se()


def _read_usability(bits: _Bits) -> tuple[bool, int | None]:
    """(square pixels, pictures that may be reordered or None) of annex E.1."""
    square = True
    if bits.u(1):
        kind = bits.u(8)
        square = kind in _SQUARE_OR_UNSAID
        if kind == _EXTENDED_SAR:
            width, height = bits.u(16), bits.u(16)
            square = width == height or not width or not height
    if bits.u(1):
        bits.u(1)
    if bits.u(1):
        bits.u(4)
        if bits.u(1):
            bits.u(24)
    if bits.u(1):
        bits.ue()
        bits.ue()
    if bits.u(1):
        bits.u(65)
    timed = [_skip_buffer_model(bits) for _ in range(2)]
    if any(timed):
        bits.u(1)
    bits.u(1)
    if not bits.u(1):
        return square, None
    bits.u(1)
    for _ in range(4):
        bits.ue()
    return square, bits.ue()


def _skip_buffer_model(bits: _Bits) -> bool:
    if not bits.u(1):
        return False
    count = bits.ue() + 1
    bits.u(8)
    for _ in range(count):
        bits.ue()
        bits.ue()
        bits.u(1)
    bits.u(20)
    return True


class _Bits:
    """Bits of a unit's payload, most significant first, without the bytes that guard start codes.

    Every read past the end raises ValueError.
    """

    def __init__(self, payload: bytes) -> None:
        clean = payload.replace(b"\0\0\3", b"\0\0")
        self._value = int.from_bytes(clean, "big")
        self._left = 8 * len(clean)

    def u(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise ValueError("a parameter set ends early")
        return self._value >> self._left & (1 << count) - 1

    def ue(self) -> int:
        """An unsigned Exp-Golomb code (clause 9.1)."""
        zeros = 0
        while not self.u(1):
            zeros += 1
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)
