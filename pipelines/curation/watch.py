"""WATCH: one decode of a file gives its shots, all their signals, and a few frames of each.

Every frame is averaged down to the analysis size for the boundary detectors. Some are looked at
closely (moments.py): motion, sharpness, borders, text, colours. Nothing is decoded twice, frames
stay in this process, and memory does not grow with the length of the film beyond its thumbnails.

The rows of a source tile it exactly. A gradual transition is a row of its own, with `single_shot`
0, so that it is dropped and the shots beside it hold no frame of each other.

All of it runs in a child process with limits (pipelines.sandbox): a file that hangs, crashes or
eats the memory gives a source with a reason.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from pipelines.config import setting
from pipelines.curation.borders import BordersConfig
from pipelines.curation.measure import Measured, ShotMeasurer
from pipelines.curation.moments import Moment, MomentCollector
from pipelines.curation.overlay_text import TextMeasureConfig
from pipelines.curation.shots import ShotFinder, ShotsConfig, Span
from pipelines.media import (
    Crop,
    MediaError,
    MediaInfo,
    MediaLimits,
    is_image,
    opened_pictures,
    probe,
    read_image,
    small_of_rgb,
)
from pipelines.media.frames import DEFAULT_FPS
from pipelines.records import Clip, Source, clip_id_of
from pipelines.sandbox import SandboxConfig, SandboxFault, run_limited


@dataclass(frozen=True)
class WatchConfig:
    """What is measured, and how. A change means that footage is watched again."""

    analysis_px: int = setting(
        160, "longer side of the frames that cuts and motion are found on", unit="px", low=32
    )
    sample_px: int = setting(
        384, "longer side of the frames the models see", unit="px", low=64, high=1024
    )
    jpeg_quality: int = setting(90, "of the frames the models see", low=1, high=100)
    max_pixels: int = setting(
        8192 * 4320, "larger pictures are refused before decoding", unit="px", low=1
    )
    shots: ShotsConfig = field(default_factory=ShotsConfig)
    borders: BordersConfig = field(default_factory=BordersConfig)
    text: TextMeasureConfig = field(default_factory=TextMeasureConfig)
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)


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
        before = _identity(path)
        watched = run_limited(
            config.sandbox.limits(source.size_bytes), watch_file, source, path, config
        )
        if _identity(path) != before or before[-1] != source.size_bytes:
            raise MediaError("changed_while_read")
        return watched
    except MediaError as error:
        return Watched(failed(source, error.reason))
    except OSError:
        return Watched(failed(source, "unreadable"))
    except SandboxFault as fault:
        logging.getLogger(__name__).error("watching %s failed: %s", source.uris, fault)
        return Watched(failed(source, "broken"))


def failed(source: Source, reason: str) -> Source:
    return dataclasses.replace(source, status="failed", reason=reason)


def watch_file(source: Source, path: str, config: WatchConfig) -> Watched:
    """The same in this process, without limits. Raises MediaError."""
    cv2.setNumThreads(1)
    limits = MediaLimits(max_pixels=config.max_pixels)
    if is_image(path):
        return _watch_image(source, probe(path, limits), path, config)
    return _watch_video(source, path, limits, config)


# --- videos and stills -----------------------------------------------------------------------


def _watch_video(source: Source, path: str, limits: MediaLimits, config: WatchConfig) -> Watched:
    found: list[tuple[Span, Measured]] = []
    times_s: list[float] = []
    with opened_pictures(path, limits) as stream:
        fps = stream.info.fps or DEFAULT_FPS
        finder = ShotFinder(fps, config.shots)
        collector = MomentCollector(fps, config.sample_px)
        measure = ShotMeasurer(fps, config.borders, config.text, config.jpeg_quality)
        for timed in stream.pictures():
            times_s.append(timed.time_s)
            bgr_HWC = timed.picture.bgr(config.analysis_px)
            collector.push(timed, bgr_HWC)
            for span, thumbs in finder.push(bgr_HWC):
                found.append((span, measure(span, thumbs, collector.take(span.start, span.end))))
                collector.new_shot(times_s[span.end])
        for span, thumbs in finder.finish():
            found.append((span, measure(span, thumbs, collector.take(span.start, span.end))))
        times_s.append(stream.end_s)
        info = stream.info
    steady_fps = _steady_fps(info.fps, times_s)
    source = _probed(source, info, len(times_s) - 1, times_s[-1], steady_fps)
    rows = [
        _clip(source, info, "video", index, span, (times_s[span.start], times_s[span.end]), seen)
        for index, (span, seen) in enumerate(found)
    ]
    samples = {row.clip_id: seen.jpegs for row, (_, seen) in zip(rows, found, strict=True)}
    return Watched(source, rows, samples)


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
    seen = measure(span, np.zeros((1, 1, 1, 3), np.uint8), [moment])
    source = _probed(source, info, 1, 0.0, None)
    row = _clip(source, info, "image", 0, span, (0.0, 0.0), seen)
    return Watched(source, [row], {row.clip_id: seen.jpegs})


def _steady_fps(nominal: float | None, times_s: Sequence[float]) -> float:
    """The container's rate, or frames over time where the two differ (a variable rate)."""
    counted = (len(times_s) - 1) / max(times_s[-1], 1e-3)
    if nominal and abs(nominal - counted) <= 0.02 * nominal:
        return nominal
    return counted


def _probed(
    source: Source, info: MediaInfo, num_frames: int, duration_s: float, fps: float | None
) -> Source:
    return dataclasses.replace(
        source,
        container=info.container,
        codec=info.codec,
        width_px=info.width_px,
        height_px=info.height_px,
        rotation_deg=info.rotation_deg,
        fps=fps,
        duration_s=duration_s,
        num_frames=num_frames,
    )


def _clip(
    source: Source,
    info: MediaInfo,
    kind: str,
    shot_index: int,
    span: Span,
    time_span_s: tuple[float, float],
    seen: Measured,
) -> Clip:
    crop = seen.crop or Crop(0, 0, info.width_px, info.height_px)
    look, motion = seen.look, seen.motion
    return Clip(
        clip_id=clip_id_of(source.source_id, span.start, span.end),
        source_id=source.source_id,
        kind=kind,
        shot_index=shot_index,
        start_frame=span.start,
        end_frame=span.end,
        start_s=time_span_s[0],
        end_s=time_span_s[1],
        fps=source.fps or 0.0,
        width_px=info.width_px,
        height_px=info.height_px,
        crop_x_px=crop.x_px,
        crop_y_px=crop.y_px,
        crop_w_px=crop.w_px,
        crop_h_px=crop.h_px,
        motion=motion.magnitude if motion else None,
        motion_dx=motion.dx if motion else None,
        motion_dy=motion.dy if motion else None,
        sharpness=look.sharpness if look else None,
        brightness=look.brightness if look else None,
        contrast=look.contrast if look else None,
        flashes=seen.flashes_per_s,
        text_area=seen.text_area,
        single_shot=seen.single_shot,
        phash=seen.phash,
        license=source.license,
        consent=source.consent,
    )


def _identity(path: str) -> tuple[int, int, int, int]:
    """Differs when the file at this path was replaced or written: device, inode, time, size."""
    status = os.stat(path)
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
