"""Clips out of their source: exactly the frames asked for, the same bytes every time.

Where it is exact, the coded pictures are copied and only the clip's edges coded again
(smart_cut.py); else all of it is (cut_encode.py). Either way presentation times are the source's,
not resampled: a variable rate stays variable, so no frame is dropped or doubled, and readers that
want a steady rate choose frames by time. Rotation is applied and stretched pixels are made square,
so a clip needs no side data to be shown right. Sound is left out.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path

import av
from av.container import InputContainer

from pipelines.media.cursors import FrameCursor
from pipelines.media.cut_encode import TimedFrame, encode_clip, encode_frames
from pipelines.media.cut_order import (
    Coding,
    Crop,
    CutFailure,
    CutOrder,
    CutResult,
    FrameSpan,
    Method,
)
from pipelines.media.errors import MediaError
from pipelines.media.opening import (
    DEFAULT_LIMITS,
    MediaLimits,
    head_of_file,
    is_image_head,
    opened_video,
)
from pipelines.media.packet_table import NotCopyable, PacketTable, table_of_packets
from pipelines.media.probe import DecodeCount, MediaInfo, decoded, info_of_stream, read_image
from pipelines.media.smart_cut import SmartCutter, check_span, why_not_copied
from pipelines.media.write import write_image

Opened = tuple[InputContainer, av.VideoStream]


def cut_clip(
    source: str | Path,
    out: str | Path,
    *,
    start_frame: int,
    end_frame: int,
    start_s: float,
    end_s: float,
    crop: Crop | None = None,
    method: Method = "smart",
    crf: int = 18,
    preset: str = "veryfast",
    limits: MediaLimits = DEFAULT_LIMITS,
) -> CutResult:
    """Writes frames [start_frame, end_frame) of `source`, shown from `start_s` to `end_s`.

    `out` ends in .mp4 (H.264, yuv420p), or .jpg for a still source. Times are from the source's
    first picture, as `opened_pictures` gives them. Raises MediaError `cut_failed` when exactly
    these frames can't be found, and the usual reasons when the source can't be decoded; nothing
    is left at `out` then.
    """
    order = CutOrder(Path(out), FrameSpan(start_frame, end_frame, start_s, end_s), crop)
    (result,) = cut_clips(source, [order], method, Coding(crf, preset), limits)
    if isinstance(result, CutFailure):
        raise MediaError(result.reason, result.detail)
    return result


def cut_clips(
    source: str | Path,
    orders: Sequence[CutOrder],
    method: Method = "smart",
    coding: Coding | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
    stop_after_s: float | None = None,
) -> list[CutResult | CutFailure]:
    """Writes the clips, reading the source once; quickest when they are in order of time.

    A clip's bytes do not depend on the others. Gives a result for each order, or for the first
    ones when `stop_after_s` seconds have passed, but for one at least. Raises MediaError when
    the source gives no picture at all.
    """
    coding = coding or Coding()
    deadline = None if stop_after_s is None else time.monotonic() + stop_after_s
    results: list[CutResult | CutFailure] = []
    if is_image_head(head_of_file(source)):
        return [_cut_image(source, order, limits) for order in orders]
    with ExitStack() as stack:
        film = _Film(source, coding or Coding(), limits, stack)
        for order in orders:
            results.append(_cut_one(film, order, method))
            if deadline is not None and time.monotonic() > deadline:
                break
    return results


def _cut_one(film: _Film, order: CutOrder, method: Method) -> CutResult | CutFailure:
    try:
        if method == "smart" and not order.crop:
            with suppress(NotCopyable):
                return film.copied(order)
        return film.encoded(order)
    except MediaError as error:
        return CutFailure(error.reason, error.detail)


class _Film:
    """A source opened for all its clips; `stack` closes what a clip needed and so was opened."""

    def __init__(
        self, source: str | Path, coding: Coding, limits: MediaLimits, stack: ExitStack
    ) -> None:
        self._source = source
        self._coding = coding
        self._limits = limits
        self._stack = stack

    def copied(self, order: CutOrder) -> CutResult:
        """Raises NotCopyable."""
        if self._cutter is None:
            raise NotCopyable("nothing of this film")
        try:
            method = self._cutter.cut(order)
        except (av.FFmpegError, ValueError) as error:
            raise NotCopyable(f"{type(error).__name__}: {error}") from None
        return _result(order, method, *self._cutter.size_px)

    def encoded(self, order: CutOrder) -> CutResult:
        container, stream, info = self._pictures
        if self._table is not None:
            with suppress(NotCopyable):
                frames = self._frames_of(order.span, self._table)
                if size := encode_frames(frames, info, order, self._coding):
                    return _result(order, "encoded", *size)
            self._cursor.forget()
        size = encode_clip(container, stream, info, order, self._coding)
        return _result(order, "encoded", *size)

    def _frames_of(self, span: FrameSpan, table: PacketTable) -> Iterator[TimedFrame]:
        """Raises NotCopyable where the packets do not say which frames these are."""
        check_span(table, span)
        for number, frame in enumerate(self._cursor.frames(span.start_frame, span.end_frame)):
            yield frame, table.time_s(span.start_frame + number)

    @cached_property
    def _packets(self) -> Opened:
        return self._stack.enter_context(opened_video(self._source, self._limits, probed=False))

    @cached_property
    def _table(self) -> PacketTable | None:
        with suppress(NotCopyable):
            return table_of_packets(*self._packets)
        return None

    @cached_property
    def _cutter(self) -> SmartCutter | None:
        """None where nothing of the film can be copied."""
        if self._table is None:
            return None
        with suppress(NotCopyable):
            first = next(FrameCursor(*self._packets, self._table).frames(0, 1))
            info = info_of_stream(*self._packets, first)
            if not why_not_copied(self._table, info, first.format.name):
                return SmartCutter(self._packets, lambda: self._cursor, self._table, self._coding)
        return None

    @cached_property
    def _pictures(self) -> tuple[InputContainer, av.VideoStream, MediaInfo]:
        opened = self._stack.enter_context(opened_video(self._source, self._limits))
        first = next(decoded(*opened, DecodeCount()), None)
        if first is None:
            raise MediaError("broken", "no picture decoded")
        return *opened, info_of_stream(*opened, first)

    @cached_property
    def _cursor(self) -> FrameCursor:
        assert self._table is not None
        return FrameCursor(*self._pictures[:2], self._table)


def _cut_image(source: str | Path, order: CutOrder, limits: MediaLimits) -> CutResult | CutFailure:
    crop = order.crop
    try:
        image_HWC = read_image(source, limits)
        if crop:
            rows = slice(crop.y_px, crop.y_px + crop.h_px)
            image_HWC = image_HWC[rows, crop.x_px : crop.x_px + crop.w_px]
        if order.out.suffix.lower() not in (".jpg", ".jpeg") or not image_HWC.size:
            raise MediaError("cut_failed", "a still becomes a .jpg with at least one pixel")
        write_image(order.out, image_HWC)
    except MediaError as error:
        return CutFailure(error.reason, error.detail)
    return _result(order, "encoded", image_HWC.shape[1], image_HWC.shape[0])


def _result(order: CutOrder, method: str, width_px: int, height_px: int) -> CutResult:
    data = order.out.read_bytes()
    sha256 = hashlib.sha256(data).hexdigest()
    return CutResult(order.span.num_frames, width_px, height_px, len(data), sha256, method)
