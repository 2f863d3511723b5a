"""A film watched: whole, or in parts at the same time and joined to exactly the same rows.

A long film is entered at keyframes. The first cut that is certain after an entry is where that
part begins, and where the part before it ends: both find it by the same rule, from the same
pictures, so the parts tile the film without a gap or an overlap, and every shot is measured whole,
in one part. What little is watched twice is one shot a part. (A part that holds no cut is watched
to its end by the part before it.) When the parts do not fit, for whatever reason, the film is
watched again in one go: that is the rule, the parts are a way to have it sooner.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipelines.curation.measure import Measured, ShotMeasurer
from pipelines.curation.moments import MomentCollector
from pipelines.curation.shots import ShotFinder, Span
from pipelines.curation.watch_config import WatchConfig
from pipelines.media import Crop, Entry, MediaInfo, MediaLimits, PictureStream, opened_pictures
from pipelines.media.frames import DEFAULT_FPS
from pipelines.records import Clip, Source, clip_id_of

#: A part begins with a cut at least this long after its entry: what decides about a cut (the
#: detector's window, a flash, a fade) lies within it.
_SETTLED_S = 1.0


@dataclass(frozen=True)
class Part:
    """From the first certain cut after `entry` (None: from the film's first picture) to the first
    certain cut after `until` (None: to the film's end)."""

    entry: Entry | None = None
    until: Entry | None = None


WHOLE = Part()


@dataclass(frozen=True)
class PartSeen:
    """What one part gave: rows of frames [start, end), in order.

    `start` None: no cut was found that it could begin with. `source.fps` is the container's word.
    """

    source: Source
    start: int | None
    end: int
    end_s: float
    is_last: bool
    clips: list[Clip] = field(default_factory=list)
    samples: dict[str, list[bytes]] = field(default_factory=dict)


def parts_between(entries: Sequence[Entry]) -> list[Part]:
    """The parts that begin at these entries, the first of which is the film's beginning."""
    if len(entries) < 2:
        return [WHOLE]
    bounds = [None, *entries[1:], None]
    return [Part(entry, until) for entry, until in itertools.pairwise(bounds)]


def see_part(
    source: Source, path: str, part: Part, limits: MediaLimits, config: WatchConfig
) -> PartSeen:
    """Decodes and measures one part. Raises MediaError."""
    quick = config.loop_filter == "skip"
    with opened_pictures(path, limits, skip_loop_filter=quick, entry=part.entry) as stream:
        watcher = _PartWatcher(stream, part, config)
        watcher.watch()
        return watcher.seen(source)


def join_parts(source: Source, parts: Sequence[PartSeen]) -> PartSeen | None:
    """All of the film, or None where the parts do not tile it."""
    filled = [part for part in parts if part.start is not None and part.end > part.start]
    starts = [part.start for part in filled] + [filled[-1].end if filled else 0]
    fits = [part.end for part in filled] == starts[1:] and starts[0] == 0
    if not filled or not fits or not filled[-1].is_last:
        return None
    last = filled[-1]
    return dataclasses.replace(
        last,
        source=filled[0].source,
        start=0,
        clips=[clip for part in filled for clip in part.clips],
        samples={key: value for part in filled for key, value in part.samples.items()},
    )


def finished(seen: PartSeen) -> tuple[Source, list[Clip]]:
    """The source and its rows, now that the whole film is known."""
    fps = _steady_fps(seen.source.fps, seen.end, seen.end_s)
    source = dataclasses.replace(seen.source, num_frames=seen.end, duration_s=seen.end_s, fps=fps)
    clips = [
        dataclasses.replace(clip, shot_index=index, fps=fps)
        for index, clip in enumerate(seen.clips)
    ]
    return source, clips


class _PartWatcher:
    """One pass over the pictures of a part."""

    def __init__(self, stream: PictureStream, part: Part, config: WatchConfig) -> None:
        self._stream, self._part, self._config = stream, part, config
        fps = stream.info.fps or DEFAULT_FPS
        self._settled = round(_SETTLED_S * fps)
        self._first = part.entry.frame if part.entry else 0
        self._finder = ShotFinder(fps, config.shots, self._first)
        self._collector = MomentCollector(fps, config.sample_px)
        self._measure = ShotMeasurer(fps, config.borders, config.text, config.jpeg_quality)
        self._times_s: list[float] = []  # of frames from self._first on
        self._found: list[tuple[Span, Measured]] = []
        self._start: int | None = None if part.entry else 0
        self._end: int | None = None  # known when the part ends before the film does

    def watch(self) -> None:
        for timed in self._stream.pictures():
            self._times_s.append(timed.time_s)
            bgr_HWC = timed.picture.bgr(self._config.analysis_px)
            self._collector.push(timed, bgr_HWC)
            self._take(self._finder.push(bgr_HWC))
            if (cut := self._finder.new_cut) is not None:
                self._collector.new_shot(cut, self._time_s(cut))
            if self._is_over(timed.index):
                return
        self._take(self._finder.finish())
        self._times_s.append(self._stream.end_s)

    def seen(self, source: Source) -> PartSeen:
        info = self._stream.info
        last = self._first + len(self._times_s) - 1
        end = last if self._end is None else self._end
        source = probed(source, info)
        rows = [self._clip(source, info, span, measured) for span, measured in self._found]
        samples = {
            row.clip_id: measured.jpegs
            for row, (_, measured) in zip(rows, self._found, strict=True)
        }
        is_last = self._end is None and self._start is not None
        return PartSeen(source, self._start, end, self._time_s(end), is_last, rows, samples)

    def _take(self, spans: Iterable[tuple[Span, np.ndarray]]) -> None:
        for span, levels_N in spans:
            moments = self._collector.take(span.start, span.end)
            if self._start is not None:
                self._found.append((span, self._measure(span, levels_N, moments)))

    def _is_over(self, index: int) -> bool:
        """Notes where the part begins and ends, when that has just become certain."""
        cut, until = self._finder.last_cut, self._part.until
        if self._start is None and cut is not None and cut >= self._first + self._settled:
            self._start = cut
        if until is None:
            return False
        if self._start is None:  # whatever cut comes next is the next part's beginning
            return index > until.frame + 2 * self._settled
        if cut is not None and cut >= until.frame + self._settled:
            self._end = cut
            return True
        return False

    def _time_s(self, frame: int) -> float:
        return self._times_s[frame - self._first]

    def _clip(self, source: Source, info: MediaInfo, span: Span, seen: Measured) -> Clip:
        times_s = self._time_s(span.start), self._time_s(span.end)
        return clip_row(source, info, "video", span, times_s, seen)


def clip_row(
    source: Source,
    info: MediaInfo,
    kind: str,
    span: Span,
    time_span_s: tuple[float, float],
    seen: Measured,
) -> Clip:
    """The row of one shot or still; its `shot_index` and `fps` are not known yet."""
    crop = seen.crop or Crop(0, 0, info.width_px, info.height_px)
    look, motion = seen.look, seen.motion
    return Clip(
        clip_id=clip_id_of(source.source_id, span.start, span.end),
        source_id=source.source_id,
        kind=kind,
        shot_index=0,
        start_frame=span.start,
        end_frame=span.end,
        start_s=time_span_s[0],
        end_s=time_span_s[1],
        fps=0.0,
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


def probed(source: Source, info: MediaInfo) -> Source:
    """The source with what its container says."""
    return dataclasses.replace(
        source,
        container=info.container,
        codec=info.codec,
        width_px=info.width_px,
        height_px=info.height_px,
        rotation_deg=info.rotation_deg,
        fps=info.fps,
    )


def _steady_fps(nominal: float | None, num_frames: int, duration_s: float) -> float:
    """The container's rate, or frames over time where the two differ (a variable rate)."""
    counted = num_frames / max(duration_s, 1e-3)
    if nominal and abs(nominal - counted) <= 0.02 * nominal:
        return nominal
    return counted
