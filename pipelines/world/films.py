"""From a film's plan to its frames, its file and its ground truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from pipelines import media
from pipelines.config import to_plain
from pipelines.world.dressing import Layer, caption_layer, framed, watermark_layer
from pipelines.world.plan import FilmPlan, ShotPlan
from pipelines.world.takes import flash_ticks, take
from pipelines.world.transitions import mix
from pipelines.world.truth import (
    Box,
    DuplicateOf,
    EncodingTruth,
    FilmTruth,
    GradualSpan,
    Overlay,
    ShotTruth,
    write_truth,
)


def film_ticks(plan: FilmPlan) -> Iterator[np.ndarray]:
    """Every tick of the film as displayed, uint8 (H, W, 3) RGB."""
    picture, as_drawn = plan.picture, (plan.width_px, plan.height_px)
    watermark = _watermark(plan)
    for frame in _edited(plan):
        if watermark:
            watermark.paste(frame)
        frame = framed(frame, picture, *as_drawn)
        if plan.shown_px != as_drawn:
            frame = cv2.resize(frame, plan.shown_px, interpolation=cv2.INTER_AREA)
        yield frame


def film_frames(plan: FilmPlan) -> Iterator[np.ndarray]:
    """The frames the film shows, in order: all its ticks, or those a variable rate leaves."""
    for frame, is_shown in zip(film_ticks(plan), plan.shown(), strict=True):
        if is_shown:
            yield frame


def write_film(plan: FilmPlan, root: Path) -> FilmTruth:
    """Encodes the film (or the still) below `root`, writes its truth beside it, returns that."""
    path = root / plan.file_name
    path.parent.mkdir(parents=True, exist_ok=True)
    if plan.is_still:
        media.write_image(path, next(film_frames(plan)))
    else:
        _write_video(plan, path)
    truth = film_truth(plan)
    write_truth(path, truth)
    return truth


def _write_video(plan: FilmPlan, path: Path) -> None:
    variable = plan.variable_frame_rate
    media.write_video(
        path,
        (_stored(frame, plan.rotation_deg) for frame in film_frames(plan)),
        fps=plan.fps,
        codec=plan.encoding.codec,
        pix_fmt=plan.encoding.pix_fmt,
        options=dict(plan.encoding.options),
        frame_pts=np.flatnonzero(plan.shown()).tolist() if variable else None,
        time_base=1 / plan.fps if variable else None,
        rotation_deg=plan.rotation_deg,
        threads=1,
    )


def film_truth(plan: FilmPlan) -> FilmTruth:
    """What a perfect watcher would say of the film."""
    shown, spans = plan.shown(), plan.spans()
    frame_of_tick = np.concatenate([[0], np.cumsum(shown)]).tolist()
    cuts: list[int] = []
    gradual: list[GradualSpan] = []
    flashes: list[int] = []
    for index, (shot, (start, _)) in enumerate(zip(plan.shots, spans, strict=True)):
        before = start - shot.lead_in.num_ticks
        if index and shot.lead_in.kind == "cut":
            cuts.append(frame_of_tick[start])
        elif index:
            span = (frame_of_tick[before], frame_of_tick[start])
            gradual.append(GradualSpan(*span, shot.lead_in.kind))
        flashes += [
            frame_of_tick[before + tick]
            for tick in flash_ticks(shot, _take_ticks(plan, index), plan.fps)
            if shown[before + tick]
        ]
    return FilmTruth(
        file=plan.file_name,
        kind="still" if plan.is_still else "film",
        origin="generated",
        encoding=_encoding_truth(plan),
        shots=tuple(
            _shot_truth(plan, index, frame_of_tick[start], frame_of_tick[end])
            for index, (start, end) in enumerate(spans)
        ),
        cuts=tuple(cuts),
        gradual=tuple(gradual),
        flash_frames=tuple(flashes),
        duplicate_of=DuplicateOf(plan.reencodes, "reencoded") if plan.reencodes else None,
    )


def _edited(plan: FilmPlan) -> Iterator[np.ndarray]:
    """The ticks of the picture inside the borders: takes joined by their transitions."""
    takes = [_dressed_take(plan, index) for index in range(len(plan.shots))]
    for index, shot in enumerate(plan.shots):
        for step in range(shot.lead_in.num_ticks):
            yield mix(shot.lead_in, step, next(takes[index - 1]), next(takes[index]))
        for _ in range(shot.num_ticks):
            yield next(takes[index])


def _dressed_take(plan: FilmPlan, index: int) -> Iterator[np.ndarray]:
    shot, picture = plan.shots[index], plan.picture
    layer = _caption(shot, picture.w, picture.h)
    for frame in take(shot, _take_ticks(plan, index), picture.w, picture.h, plan.fps):
        if layer:
            layer.paste(frame)
        yield frame


def _take_ticks(plan: FilmPlan, index: int) -> int:
    """A take is filmed from the start of the transition into it to the end of the one out."""
    lead_out = plan.shots[index + 1].lead_in.num_ticks if index + 1 < len(plan.shots) else 0
    return plan.shots[index].lead_in.num_ticks + plan.shots[index].num_ticks + lead_out


def _caption(shot: ShotPlan, width_px: int, height_px: int) -> Layer | None:
    if not shot.words:
        return None
    style = "caption_bar" if shot.seed % 2 == 0 else "subtitle"
    return _cached_caption(shot.words, style, width_px, height_px)


_cached_caption = cache(caption_layer)


def _watermark(plan: FilmPlan) -> Layer | None:
    picture = plan.picture
    if not plan.watermark:
        return None
    return watermark_layer(plan.watermark, plan.seed % 4, picture.w, picture.h)


def _stored(frame_HWC: np.ndarray, rotation_deg: int) -> np.ndarray:
    """The frame as coded, which a player turns clockwise by `rotation_deg` to show it."""
    return np.rot90(frame_HWC, k=rotation_deg // 90)


def _encoding_truth(plan: FilmPlan) -> EncodingTruth:
    num_frames = int(plan.shown().sum())
    duration_s = float(plan.num_ticks / plan.fps)
    return EncodingTruth(
        codec=plan.encoding.name,
        container=plan.encoding.extension,
        pix_fmt=plan.encoding.pix_fmt,
        width_px=plan.shown_px[0],
        height_px=plan.shown_px[1],
        rotation_deg=plan.rotation_deg,
        fps=round(num_frames / duration_s, 6) if plan.variable_frame_rate else float(plan.fps),
        variable_frame_rate=plan.variable_frame_rate,
        num_frames=num_frames,
        duration_s=round(duration_s, 6),
    )


def _shot_truth(plan: FilmPlan, index: int, start: int, end: int) -> ShotTruth:
    shot = plan.shots[index]
    seen = shot.scene if shot.kind not in ("black", "flat") else None
    return ShotTruth(
        index=index,
        start=start,
        end=end,
        kind=shot.kind,
        scene=to_plain(seen) if seen else None,
        caption=seen.caption if seen else None,
        still_caption=seen.still_caption if seen else None,
        short_caption=seen.short_caption if seen else None,
        crop=_as_shown(plan, plan.picture),
        overlays=_overlays(plan, shot),
        must_drop=shot.must_drop,
        duplicate_of=shot.duplicate_of,
    )


def _overlays(plan: FilmPlan, shot: ShotPlan) -> tuple[Overlay, ...]:
    picture = plan.picture
    layers = (_caption(shot, picture.w, picture.h), _watermark(plan))
    return tuple(_placed(plan, layer.overlay) for layer in layers if layer)


def _placed(plan: FilmPlan, overlay: Overlay) -> Overlay:
    """The overlay of the picture inside the borders, in pixels of the whole frame as shown."""
    box, text_box = (
        _as_shown(plan, Box(b.x + plan.picture.x, b.y + plan.picture.y, b.w, b.h))
        for b in (overlay.box, overlay.text_box)
    )
    share = round(text_box.area_px / (plan.shown_px[0] * plan.shown_px[1]), 4)
    return replace(overlay, box=box, text_box=text_box, share=share)


def _as_shown(plan: FilmPlan, box: Box) -> Box:
    across, down = plan.shown_px[0] / plan.width_px, plan.shown_px[1] / plan.height_px
    left, top = round(box.x * across), round(box.y * down)
    right, bottom = round((box.x + box.w) * across), round((box.y + box.h) * down)
    return Box(left, top, right - left, bottom - top)
