"""Coded pictures as an MP4 of one track, with exactly the times they are given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.video.stream import VideoStream

from pipelines.media.encoders import file_url, muxer_options
from pipelines.media.h264 import header_of, read_sequence_set
from pipelines.media.opening import opened_video
from pipelines.media.packet_table import NotCopyable


@dataclass(frozen=True)
class Track:
    """`pts` rise, in the stream's time base; the last picture is shown until `end_pts`.

    `reordering` is by how many places a picture may be decoded before it is shown.
    """

    pts: Sequence[int]
    end_pts: int
    reordering: int
    sequence_sets: list[bytes]
    picture_sets: list[bytes]


def write_track(
    target: Path, template: VideoStream, track: Track, samples: Iterable[tuple[int, bytes, bool]]
) -> None:
    """Writes the samples, which come in decoding order, and reads back how they lie.

    A sample is (its number as shown, its bytes, whether decoding can begin with it). The first is
    shown at 0. Raises NotCopyable, leaving no file, when the file's times are not the track's.
    """
    try:
        _write(target, template, track, samples)
        _check(target, track, time_base_of(template))
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _write(
    target: Path, template: VideoStream, track: Track, samples: Iterable[tuple[int, bytes, bool]]
) -> None:
    facts = read_sequence_set(track.sequence_sets[0])
    ends = [*track.pts[1:], track.end_pts]
    with av.open(file_url(target), "w", format="mp4", options=muxer_options("mp4")) as file:
        # Its parameters alone are taken: the source stays the decoder's.
        stream = file.add_stream_from_template(template, opaque=True)
        context = stream.codec_context
        context.extradata = header_of(track.sequence_sets, track.picture_sets)
        context.width, context.height = facts.width_px, facts.height_px
        for dts, (shown, sample, is_start) in zip(decoding_times(track), samples, strict=True):
            packet = av.Packet(sample)
            packet.stream, packet.time_base = stream, time_base_of(template)
            packet.pts, packet.dts = track.pts[shown] - track.pts[0], dts
            packet.duration = ends[shown] - track.pts[shown]
            packet.is_keyframe = is_start
            file.mux(packet)


def decoding_times(track: Track) -> Iterator[int]:
    """One for each sample, rising, none after its presentation: the pictures' own times, late by
    as many pictures as are reordered."""
    first, late = track.pts[0], track.reordering
    shift = track.pts[late] - first
    yield from (pts - first - shift for pts in track.pts[:late])
    yield from (pts - first for pts in track.pts[: len(track.pts) - late])


def _check(target: Path, track: Track, time_base: Fraction) -> None:
    """Raises NotCopyable unless the file has a picture at every time of the track and no other."""
    with opened_video(target, probed=False) as (container, stream):
        found = sorted(p.pts for p in container.demux(stream) if p.size and p.pts is not None)
        scale = time_base / time_base_of(stream)
    if found != [(pts - track.pts[0]) * scale for pts in track.pts]:
        raise NotCopyable(f"{len(found)} pictures were written, {len(track.pts)} meant")


def time_base_of(stream: VideoStream) -> Fraction:
    if stream.time_base is None:
        raise NotCopyable("a stream without a clock")
    return stream.time_base
