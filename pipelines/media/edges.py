"""The ends of a clip whose middle is copied: a few pictures coded to fit the copied ones.

Their parameter sets have a number of their own, so that one track can hold both codings and a
decoder goes from one to the other at any IDR picture. Without B-pictures, they stand in the file
in the order in which they are shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain

import av

from pipelines.media.cut_order import Coding
from pipelines.media.encoders import encoder_of
from pipelines.media.h264 import (
    MAX_SEQUENCE_SETS,
    PICTURE_SET,
    SEQUENCE_SET,
    picture_set_id,
    unit_type,
    units_of,
    with_lengths,
)
from pipelines.media.packet_table import NotCopyable, PacketTable

#: What x264 calls the profiles that it writes in 8-bit 4:2:0.
X264_PROFILES = {66: "baseline", 77: "main", 100: "high"}


@dataclass(frozen=True)
class Edge:
    """Coded pictures as MP4 samples, the first an IDR, with the two parameter sets they need."""

    samples: list[bytes]
    sequence_set: bytes
    picture_set: bytes


def encode_edge(
    frames: Iterable[av.VideoFrame], table: PacketTable, rate: Fraction, coding: Coding
) -> Edge:
    """Codes the frames with the stream's profile, pixel format and colours."""
    pictures = iter(frames)
    first = next(pictures)
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height = first.width, first.height
    context.pix_fmt = first.format.name
    context.framerate = rate
    context.time_base = table.time_base
    context.thread_count = 1
    context.flags |= av.codec.context.Flags.bitexact | av.codec.context.Flags.global_header
    context.colorspace, context.color_range = first.colorspace, first.color_range
    context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
    context.options = _options(table, coding)
    samples = []
    for frame in chain([first], pictures):
        frame.pict_type = 0
        samples += [_sample(bytes(p)) for p in context.encode(frame)]
    samples += [_sample(bytes(p)) for p in context.encode(None)]
    sets = units_of(context.extradata or b"", 0)
    (sequence_set,) = (unit for unit in sets if unit_type(unit) == SEQUENCE_SET)
    (picture_set,) = (unit for unit in sets if unit_type(unit) == PICTURE_SET)
    return Edge(samples, sequence_set, picture_set)


def _options(table: PacketTable, coding: Coding) -> dict[str, str]:
    own = f"{encoder_of('libx264').repeatable['x264-params']}:sps-id={free_set_id(table)}"
    return {
        "preset": coding.edge_preset,
        "crf": str(coding.crf),
        "profile": X264_PROFILES[table.facts.profile],
        "x264-params": f"{own}:bframes=0:keyint=infinite:scenecut=0",
    }


def free_set_id(table: PacketTable) -> int:
    """A number that no parameter set of the film has."""
    taken = {table.facts.set_id, *map(picture_set_id, table.picture_sets)}
    free = next((n for n in range(MAX_SEQUENCE_SETS) if n not in taken), None)
    if free is None:
        raise NotCopyable("no number is left for another parameter set")
    return free


def _sample(packet: bytes) -> bytes:
    return with_lengths(units_of(packet, 0))
