"""Going through a film once, forward, for all its clips: coded pictures, or decoded ones.

A cursor that is asked for pictures near where it stands goes on from there; further ahead, it
jumps to the closed group that holds them. So cutting every shot of a film reads and decodes
no picture twice, and none that is not needed.
"""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from pipelines.media.packet_table import NotCopyable, PacketTable

SEEK_BACK_S = 2


class PacketCursor:
    """Coded pictures of an opened film by their number in decoding order."""

    def __init__(self, container: InputContainer, stream: VideoStream, table: PacketTable) -> None:
        self._container = container
        self._stream = stream
        self._table = table
        self._packets: Iterator[Packet[VideoStream]] = iter(())
        self._next: int | None = None

    def packets(self, start: int, *, afresh: bool = False) -> Iterator[Packet[VideoStream]]:
        """From picture `start`, which begins a closed group, to the end, then the flushing packet.

        `afresh` empties the decoder first. Raises NotCopyable when the container gives other
        packets than it gave to the table.
        """
        if afresh or start != self._next:
            self._go_to(start)
        while (packet := self._take()) is not None:
            yield packet

    def _take(self) -> Packet[VideoStream] | None:
        packet = next(self._packets, None)
        if packet is None or self._next is None:
            return None
        if packet.size:
            if self._next >= len(self._table) or packet.pts != self._table.pts[self._next]:
                raise NotCopyable("the packets are not the same when read again")
            self._next += 1
        return packet

    def _go_to(self, start: int) -> None:
        """A seek may land late: where pictures are shown long after they are decoded, or in a
        container without an index. Then from earlier, and at last from the first packet."""
        table = self._table
        earlier = round(SEEK_BACK_S / table.time_base)
        first = table.shown_pts[0]
        for target in (table.pts[start], table.pts[start] - earlier, first, first - earlier):
            try:
                self._container.seek(target, stream=self._stream, backward=True)
            except (av.FFmpegError, OSError):  # some containers know nothing before their start
                continue
            self._packets = self._container.demux(self._stream)
            if self._pass_over_to(start):
                return
        raise NotCopyable(f"picture {start} is not found again")

    def _pass_over_to(self, start: int) -> bool:
        wanted = self._table.pts[start]
        for packet in self._packets:
            if packet.pts == wanted and packet.size:
                self._next = start
                self._packets = _with_first(packet, self._packets)
                return True
            if packet.pts is not None and packet.is_keyframe and packet.pts > wanted:
                return False
        return False


def _with_first(
    packet: Packet[VideoStream], rest: Iterator[Packet[VideoStream]]
) -> Iterator[Packet[VideoStream]]:
    yield packet
    yield from rest


class FrameCursor:
    """Decoded pictures of an opened film by their number as shown."""

    def __init__(self, container: InputContainer, stream: VideoStream, table: PacketTable) -> None:
        self._packets = PacketCursor(container, stream, table)
        self._table = table
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._next: int | None = None

    def frames(self, start: int, end: int) -> Iterator[av.VideoFrame]:
        """Pictures [start, end). Raises NotCopyable when the decoder gives others."""
        group = self._table.group_of(start)
        if self._next is None or not group <= self._next <= start:
            self._frames = self._decoded_from(group)
            self._next = group
        while self._next < end:
            frame = next(self._frames, None)
            if frame is None or frame.pts != self._table.shown_pts[self._next]:
                self._next = None
                raise NotCopyable("the decoder gives other pictures than the packets say")
            self._next += 1
            if self._next > start:
                yield frame

    def forget(self) -> None:
        """Somebody else moved the container."""
        self._next = None

    def _decoded_from(self, group: int) -> Iterator[av.VideoFrame]:
        for packet in self._packets.packets(group, afresh=True):
            try:
                yield from packet.decode()
            except (av.FFmpegError, ValueError) as error:
                raise NotCopyable(f"{type(error).__name__}: {error}") from None
