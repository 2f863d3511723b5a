"""Where every coded picture of an H.264 file lies in time, from one look at its packets.

Nothing is decoded. 1280x720 film: 8 microseconds a picture, where a decode takes 1400.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard
from av.video.stream import VideoStream

from pipelines.media.h264 import (
    IDR_SLICE,
    PICTURE_SET,
    SEQUENCE_SET,
    SLICE,
    SequenceSet,
    begins_picture,
    picture_set_id,
    read_sequence_set,
    sets_of_extradata,
    unit_type,
    units_of,
)

#: Units that may stand beside a picture: SEI, delimiter, ends, filler. Anything else (partitions,
#: layers, further views) makes a stream that we do not take apart.
_HARMLESS = frozenset((6, 9, 10, 11, 12))
_PARAMETER_SETS = frozenset((SEQUENCE_SET, PICTURE_SET))
_SLICES = frozenset((SLICE, IDR_SLICE))


class NotCopyable(Exception):
    """Why coded pictures of this file, or this clip, are not taken as they are."""


@dataclass(frozen=True)
class PacketTable:
    """Coded pictures in two orders: as they are decoded, and as they are shown.

    `pts` are in decoding order, `shown_pts` rise; the pictures [k, next k) of `groups` (closed
    groups, each begun by an IDR picture) are the same in both orders. Times are in `time_base`.
    """

    pts: array[int]
    shown_pts: array[int]
    groups: array[int]
    time_base: Fraction
    sequence_set: bytes
    picture_sets: tuple[bytes, ...]
    length_bytes: int

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def facts(self) -> SequenceSet:
        return read_sequence_set(self.sequence_set)

    def group_of(self, picture: int) -> int:
        """The number of the first picture of its closed group."""
        return self.groups[bisect_right(self.groups, picture) - 1]

    def next_group(self, picture: int) -> int:
        """The number of the first group's start at or after this picture; the length at the end."""
        at = bisect_left(self.groups, picture)
        return self.groups[at] if at < len(self.groups) else len(self)

    def rank(self, pts: int) -> int:
        """The picture shown at that time. Raises NotCopyable when there is none."""
        at = bisect_left(self.shown_pts, pts)
        if at == len(self) or self.shown_pts[at] != pts:
            raise NotCopyable(f"no picture has the time {pts}")
        return at

    def time_s(self, shown: int) -> float:
        """Seconds after the first picture."""
        return float((self.shown_pts[shown] - self.shown_pts[0]) * self.time_base)


def table_of_packets(container: InputContainer, stream: VideoStream) -> PacketTable:
    """Reads all packets. Raises NotCopyable where they do not say which picture is which."""
    if stream.codec_context.codec.canonical_name != "h264" or not stream.time_base:
        raise NotCopyable("not H.264")
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    try:
        found = _Found(*sets_of_extradata(stream.codec_context.extradata or b""))
        for packet in container.demux(stream):
            if packet.size:
                found.add(packet)
        return found.table(stream.time_base)
    except (ValueError, IndexError, OSError) as error:
        raise NotCopyable(f"{type(error).__name__}: {error}") from None


class _Found:
    def __init__(self, parameter_sets: list[bytes], length_bytes: int) -> None:
        self._pts, self._groups = array("q"), array("q")
        self._sequence_sets: dict[int, bytes] = {}
        self._picture_sets: dict[int, bytes] = {}
        self._length_bytes = length_bytes
        for unit in parameter_sets:
            self._keep(unit)

    def add(self, packet: Packet[VideoStream]) -> None:
        if packet.pts is None or packet.is_corrupt or packet.is_discard:
            raise NotCopyable("a packet without a time, damaged, or not to be shown")
        if packet.has_sidedata("new_extradata"):
            raise NotCopyable("the coding changes midway")
        pictures, is_closed_start = 0, False
        for unit in units_of(bytes(packet), self._length_bytes):
            kind = unit_type(unit)
            if kind in _SLICES:
                pictures += begins_picture(unit)
                is_closed_start |= kind == IDR_SLICE
            elif kind in _PARAMETER_SETS:
                self._keep(unit)
            elif kind not in _HARMLESS:
                raise NotCopyable(f"units of type {kind}")
        if pictures != 1:
            raise NotCopyable(f"{pictures} pictures in a packet")
        if is_closed_start:
            self._groups.append(len(self._pts))
        self._pts.append(packet.pts)

    def _keep(self, unit: bytes) -> None:
        """A set may be repeated, as it is; another under the same number makes two codings."""
        if unit_type(unit) == SEQUENCE_SET:
            known, number = self._sequence_sets, read_sequence_set(unit).set_id
        elif unit_type(unit) == PICTURE_SET:
            known, number = self._picture_sets, picture_set_id(unit)
        else:
            return
        if known.setdefault(number, unit) != unit:
            raise NotCopyable("parameter sets change midway")

    def table(self, time_base: Fraction) -> PacketTable:
        if not self._pts or not self._groups or self._groups[0] != 0:
            raise NotCopyable("does not begin with a closed group of pictures")
        if len(self._sequence_sets) != 1 or not self._picture_sets:
            raise NotCopyable(f"{len(self._sequence_sets)} sequence parameter sets")
        shown = array("q", sorted(self._pts))
        if any(a == b for a, b in pairwise(shown)):
            raise NotCopyable("two pictures at one time")
        for start, end in pairwise((*self._groups, len(self._pts))):
            if self._pts[start] != shown[start] or max(self._pts[start:end]) != shown[end - 1]:
                raise NotCopyable("groups of pictures overlap in time")
        (sequence_set,) = self._sequence_sets.values()
        return PacketTable(
            pts=self._pts,
            shown_pts=shown,
            groups=self._groups,
            time_base=time_base,
            sequence_set=sequence_set,
            picture_sets=tuple(unit for _, unit in sorted(self._picture_sets.items())),
            length_bytes=self._length_bytes,
        )
