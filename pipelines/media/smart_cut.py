"""Which coded pictures of a film a clip can take as they are, and which have to be coded again.

A copy may begin at an IDR picture only, and end after any picture when all decoded before it are
also shown before it. What lies between the clip's ends and such places are its edges: usually none
where a shot begins with a keyframe, else the pictures up to the next one. Recovery points and open
groups are not begun at: what is shown after them may be made from pictures before them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from av.container import InputContainer
from av.video.stream import VideoStream

from pipelines.media.cursors import FrameCursor, PacketCursor
from pipelines.media.cut_order import Coding, CutOrder, FrameSpan
from pipelines.media.edges import X264_PROFILES, Edge, encode_edge
from pipelines.media.h264 import PICTURE_SET, SEQUENCE_SET, unit_type, units_of, with_lengths
from pipelines.media.packet_copy import Track, write_track
from pipelines.media.packet_table import NotCopyable, PacketTable
from pipelines.media.probe import MediaInfo
from pipelines.media.program import program
from pipelines.media.write import exact_fps

SAME_TIME_S = 1e-4  # presentation times closer than this are the same frame's
MAX_EDGE_SHARE = 0.75  # of a clip; edges are larger in bytes than a clip coded in one piece
MAX_EDGE_FRAMES = 3000  # coded edges wait in memory
MAX_TICKS_PER_S = 1_000_000  # finer time bases do not fit MP4's clock
_PIXEL_FORMATS = ("yuv420p", "yuvj420p")
_PARAMETER_SETS = (SEQUENCE_SET, PICTURE_SET)


@dataclass(frozen=True)
class Plan:
    """Pictures [start, first_copied) and [end_copied, end) as shown are coded again."""

    start: int
    first_copied: int
    end_copied: int
    end: int

    @property
    def num_edge_frames(self) -> int:
        return (self.end - self.start) - (self.end_copied - self.first_copied)


def plan_cut(table: PacketTable, span: FrameSpan) -> Plan:
    """What of the span can be copied. Raises NotCopyable when that is nothing."""
    start, end = span.start_frame, span.end_frame
    check_span(table, span)
    first = table.next_group(start)
    if first >= end:
        raise NotCopyable("no closed group begins inside")
    plan = Plan(start, first, _end_of_copy(table, end), end)
    if plan.num_edge_frames > min(MAX_EDGE_SHARE * span.num_frames, MAX_EDGE_FRAMES):
        raise NotCopyable("the edges are too long")
    return plan


def check_span(table: PacketTable, span: FrameSpan) -> None:
    """Raises NotCopyable when the span's numbers and its times are not of the same pictures."""
    start, end = span.start_frame, span.end_frame
    if not 0 <= start < end <= len(table):
        raise NotCopyable(f"{len(table)} pictures")
    starts = abs(table.time_s(start) - span.start_s) < SAME_TIME_S
    last = end == len(table)
    ends = span.end_s > table.time_s(end - 1) if last else _same(table, end, span.end_s)
    if not (starts and ends):
        raise NotCopyable("numbers and times are of different pictures")


def _same(table: PacketTable, shown: int, time_s: float) -> bool:
    return abs(table.time_s(shown) - time_s) < SAME_TIME_S


def _end_of_copy(table: PacketTable, end: int) -> int:
    """The latest place not after `end` where all decoded before it are shown before it."""
    closed = latest = group = table.group_of(end - 1)
    for decoded in range(group, end):
        latest = max(latest, table.rank(table.pts[decoded]))
        if latest == decoded:
            closed = decoded + 1
    return closed


def why_not_copied(table: PacketTable, info: MediaInfo, pixel_format: str) -> str:
    """What about the film forbids copying; empty: nothing does."""
    facts = table.facts
    size_px = (facts.width_px, facts.height_px)
    reordered = any(a > b for a, b in zip(table.pts, table.pts[1:], strict=False))
    reasons = {
        "interlaced": not facts.progressive,
        "not 8-bit 4:2:0": (facts.chroma_format, facts.bit_depth) != (1, 8)
        or pixel_format not in _PIXEL_FORMATS,
        "turned": bool(info.rotation_deg),
        "pixels are not square": not facts.square_pixels
        or size_px != (info.width_px, info.height_px),
        "cropped by the container": size_px != (info.coded_width_px, info.coded_height_px),
        "reorders pictures, without saying by how many": reordered and not facts.max_reordered,
        f"profile {facts.profile}": facts.profile not in X264_PROFILES,
        "clock too fine": table.time_base.denominator > MAX_TICKS_PER_S,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


class SmartCutter:
    """Cuts clips out of one opened film, in rising order at best.

    `opened` is for the packets; `frames` opens the film again when edges need decoded pictures.
    """

    def __init__(
        self,
        opened: tuple[InputContainer, VideoStream],
        frames: Callable[[], FrameCursor],
        table: PacketTable,
        coding: Coding,
    ) -> None:
        self._stream = opened[1]
        self._packets = PacketCursor(*opened, table)
        self._frames = frames
        self._table = table
        self._coding = coding

    @property
    def size_px(self) -> tuple[int, int]:
        return self._table.facts.width_px, self._table.facts.height_px

    def cut(self, order: CutOrder) -> str:
        """Writes the clip and says how. Raises NotCopyable, leaving no file."""
        table, span = self._table, order.span
        plan = plan_cut(table, span)
        rate = exact_fps(span.num_frames / max(span.end_s - span.start_s, 1e-3))
        head = self._edge(plan.start, plan.first_copied, rate)
        tail = self._edge(plan.end_copied, plan.end, rate)
        edges = [edge for edge in (head, tail) if edge]
        track = Track(
            pts=table.shown_pts[plan.start : plan.end],
            end_pts=_end_pts(table, span),
            reordering=max(
                n - table.rank(table.pts[n]) for n in range(plan.first_copied, plan.end_copied)
            ),
            sequence_sets=_unlike([table.sequence_set], [e.sequence_set for e in edges]),
            picture_sets=_unlike(list(table.picture_sets), [e.picture_set for e in edges]),
        )
        write_track(order.out, self._stream, track, self._samples(plan, head, tail))
        return "copied_with_edges" if edges else "copied"

    def _edge(self, start: int, end: int, rate: Fraction) -> Edge | None:
        if start == end:
            return None
        if program():
            raise NotCopyable("edges would be coded by another FFmpeg than the one asked for")
        edge = encode_edge(self._frames().frames(start, end), self._table, rate, self._coding)
        if len(edge.samples) != end - start:
            raise NotCopyable("the encoder gives fewer pictures than it was given")
        return edge

    def _samples(
        self, plan: Plan, head: Edge | None, tail: Edge | None
    ) -> Iterator[tuple[int, bytes, bool]]:
        """(number as shown, counted from the clip's first; bytes; whether it can be begun at)."""
        for number, sample in enumerate(head.samples if head else ()):
            yield number, sample, number == 0
        table = self._table
        packets = self._packets.packets(plan.first_copied)
        for decoded in range(plan.first_copied, plan.end_copied):
            units = units_of(bytes(next(packets)), table.length_bytes)
            kept = [unit for unit in units if unit_type(unit) not in _PARAMETER_SETS]
            shown = table.rank(table.pts[decoded])
            yield shown - plan.start, with_lengths(kept), table.group_of(decoded) == decoded
        for number, sample in enumerate(tail.samples if tail else ()):
            yield plan.end_copied - plan.start + number, sample, number == 0


def _end_pts(table: PacketTable, span: FrameSpan) -> int:
    if span.end_frame < len(table):
        return table.shown_pts[span.end_frame]
    last = table.shown_pts[-1]
    return max(last + 1, table.shown_pts[0] + round(span.end_s / table.time_base))


def _unlike(first: list[bytes], more: list[bytes]) -> list[bytes]:
    """All that differ. Raises NotCopyable when the edges do not agree on theirs."""
    further = list(dict.fromkeys(more))
    if len(further) > 1:
        raise NotCopyable("the edges need different parameter sets")
    return first + further
