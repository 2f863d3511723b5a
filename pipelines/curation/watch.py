"""WATCH: one decode of a file gives its shots, all their signals, and a few frames of each.

Every frame is averaged down to the analysis size for the boundary detectors. Some are looked at
closely (moments.py): motion, sharpness, borders, text, colours. Nothing is decoded twice, frames
stay in this process, and memory does not grow with the length of the film beyond its thumbnails.

The rows of a source tile it exactly. A gradual transition is a row of its own, with `single_shot`
0, so that it is dropped and the shots beside it hold no frame of each other.

All of it runs in a child process with limits (pipelines.sandbox.calls): a file that hangs, crashes
or eats the memory gives a source with a reason.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import cv2
import numpy as np

from pipelines.curation.film import (
    WHOLE,
    Part,
    PartSeen,
    clip_row,
    finished,
    probed,
    see_part,
)
from pipelines.curation.measure import ShotMeasurer
from pipelines.curation.moments import Moment
from pipelines.curation.shots import Span
from pipelines.curation.watch_config import WatchConfig
from pipelines.media import (
    Entry,
    MediaError,
    MediaInfo,
    MediaLimits,
    entries,
    is_image,
    probe,
    read_image,
    small_of_rgb,
)
from pipelines.records import Clip, Source
from pipelines.sandbox.calls import SandboxFault, run_limited

T = TypeVar("T")


@dataclass(frozen=True)
class Watched:
    """What one look at a file gave. `samples` maps clip_id to JPEG bytes, first to last.

    A failed source has no clips. A clip shorter than a few frames may have fewer samples.
    """

    source: Source
    clips: list[Clip] = field(default_factory=list)
    samples: dict[str, list[bytes]] = field(default_factory=dict)


def watch_source(source: Source, path: str, config: WatchConfig) -> Watched:
    """Watches the file at `path` in the child process. Bad media gives a failed source, with its
    reason; nothing is raised.
    """
    if source.status != "ok":
        return Watched(source)
    try:
        return _limited(source, path, config, watch_file, source, path, config)
    except MediaError as error:
        return Watched(failed(source, error.reason))
    except OSError:
        return Watched(failed(source, "unreadable"))
    except SandboxFault as fault:
        logging.getLogger(__name__).error("watching %s failed: %s", source.uris, fault)
        return Watched(failed(source, "broken"))


def watch_part(source: Source, path: str, part: Part, config: WatchConfig) -> PartSeen | None:
    """One part of a film, in the child process; None when anything is wrong with it."""
    limits = MediaLimits(max_pixels=config.max_pixels)
    try:
        return _limited(source, path, config, see_part, source, path, part, limits, config)
    except (MediaError, OSError, SandboxFault):
        return None


def entries_of_film(source: Source, path: str, part_s: float, config: WatchConfig) -> list[Entry]:
    """Where the film can be entered, `part_s` apart, found in the child process; empty when it
    can't be, or is a still, or anything is wrong with it."""
    limits = MediaLimits(max_pixels=config.max_pixels)
    try:
        if is_image(path):
            return []
        return _limited(source, path, config, entries, path, part_s, limits)
    except (MediaError, OSError, SandboxFault):
        return []


def _limited(
    source: Source, path: str, config: WatchConfig, function: Callable[..., T], *args: Any
) -> T:
    """The function's answer about a file that stayed the same while it was read."""
    before = _identity(path)
    limits = config.sandbox.limits(source.size_bytes).of_files(path)
    answer = run_limited(limits, function, *args)
    if _identity(path) != before or before[-1] != source.size_bytes:
        raise MediaError("changed_while_read")
    return answer


def failed(source: Source, reason: str) -> Source:
    return dataclasses.replace(source, status="failed", reason=reason)


def watch_file(source: Source, path: str, config: WatchConfig) -> Watched:
    """The same in this process, without limits. Raises MediaError."""
    cv2.setNumThreads(1)
    limits = MediaLimits(max_pixels=config.max_pixels)
    if is_image(path):
        return _watch_image(source, probe(path, limits), path, config)
    seen = see_part(source, path, WHOLE, limits, config)
    return Watched(*finished(seen), seen.samples)


def _watch_image(source: Source, info: MediaInfo, path: str, config: WatchConfig) -> Watched:
    image_HWC = read_image(path, MediaLimits(max_pixels=config.max_pixels))
    luma_HW = image_HWC.mean(axis=-1)
    moment = Moment(
        index=0,
        time_s=0.0,
        picture=small_of_rgb(image_HWC, config.sample_px),
        row_levels=luma_HW.mean(axis=1),
        column_levels=luma_HW.mean(axis=0),
        gray_HW=np.zeros((2, 2), np.uint8),
    )
    span = Span(0, 1)
    measure = ShotMeasurer(0.0, config.borders, config.text, config.jpeg_quality)
    seen = measure(span, np.zeros(1), [moment])
    source = dataclasses.replace(probed(source, info), fps=None, num_frames=1, duration_s=0.0)
    row = clip_row(source, info, "image", span, (0.0, 0.0), seen)
    return Watched(source, [row], {row.clip_id: seen.jpegs})


def _identity(path: str) -> tuple[int, int, int, int]:
    """Differs when the file at this path was replaced or written: device, inode, time, size."""
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
