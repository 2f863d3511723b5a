"""KEEP: only what is kept is cut, frame-exact, in a child process that can be killed.

All clips of a source are cut in few calls, so that it is opened and read once. What is done in one
call is bounded in clips and in time; a call that dies is repeated clip by clip, so that the clip at
fault is the only one lost.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipelines.config import setting
from pipelines.curation.leak import Leak, is_chosen, measure_leak
from pipelines.media import (
    Coding,
    Crop,
    CutFailure,
    CutOrder,
    CutResult,
    FrameSpan,
    MediaError,
    cut_clips,
)
from pipelines.records import Clip
from pipelines.sandbox.calls import Limits, SandboxConfig, SandboxFault, run_limited

CLIPS_PER_CALL = 64  # cut clips wait on the worker's disk until they are stored
STOP_AFTER_S = 60.0  # a call begins no further clip after so long
METHODS = ("copied", "copied_with_edges", "encoded")
PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)


@dataclass(frozen=True)
class CutsConfig:
    """How a kept clip is cut."""

    method: Literal["smart", "encode"] = setting(
        "smart", "smart copies coded pictures where that is exact; encode codes all of them again"
    )
    crf: int = setting(
        18, "x264's constant rate factor; lower is better and larger", low=0, high=51
    )
    preset: str = setting("veryfast", "x264's preset of clips that are coded again")
    edge_preset: str = setting("superfast", "x264's preset of a copied clip's first or last frames")
    leak_share: float = setting(
        0.02, "share of the clips that are compared with their source at both ends", low=0, high=1
    )
    sandbox: SandboxConfig = field(default_factory=SandboxConfig)

    def __post_init__(self) -> None:
        for preset in (self.preset, self.edge_preset):
            if preset not in PRESETS:
                raise ValueError(f"x264 has no preset {preset!r}; there are {', '.join(PRESETS)}")


@dataclass(frozen=True)
class Cut:
    """What came of one clip: a `result` or a `failure`.

    `leak` is None where it was not measured; `cut_again` says that a copy leaked, and the clip was
    coded again.
    """

    clip: Clip
    path: Path
    result: CutResult | None = None
    failure: CutFailure | None = None
    leak: Leak | None = None
    cut_again: bool = False

    def row(self) -> dict[str, Any]:
        """As it is committed (`CUTS_SCHEMA`)."""
        result, leak = self.result, self.leak
        return {
            "clip_id": self.clip.clip_id,
            "size_bytes": result.size_bytes if result else None,
            "sha256": result.sha256 if result else None,
            "failed": str(self.failure) if self.failure else None,
            "method": result.method if result and self.clip.kind == "video" else None,
            "leak_frames": leak.leak_frames if leak else None,
            "lost_frames": leak.lost_frames if leak else None,
            "cut_again": self.cut_again,
        }


def cut_all(source: Path, folder: Path, clips: Sequence[Clip], config: CutsConfig) -> Iterator[Cut]:
    """Cuts the clips into `folder`, inside their borders. A clip that can't be cut is a failure."""
    try:
        limits = config.sandbox.limits(source.stat().st_size)
    except OSError as error:
        failure = CutFailure("unreadable", error.strerror or str(error))
        yield from (Cut(clip, folder, failure=failure) for clip in clips)
        return
    waiting = sorted(clips, key=lambda c: c.start_frame)
    at_once = CLIPS_PER_CALL
    while waiting:
        some = waiting[:at_once]
        orders = [order_of(clip, folder) for clip in some]
        results = _call(source, orders, config, limits)
        if isinstance(results, CutFailure):
            if len(some) > 1:
                at_once = 1
                continue
            results = [results]
        for clip, order, result in zip(some, orders, results, strict=False):
            yield checked(source, clip, order, result, config, limits)
        waiting = waiting[len(results) :]


def order_of(clip: Clip, folder: Path) -> CutOrder:
    suffix = "jpg" if clip.kind == "image" else "mp4"
    crop = Crop(clip.crop_x_px, clip.crop_y_px, clip.crop_w_px, clip.crop_h_px)
    whole = crop == Crop(0, 0, clip.width_px, clip.height_px)
    span = FrameSpan(clip.start_frame, clip.end_frame, clip.start_s, clip.end_s)
    return CutOrder(folder / f"{clip.clip_id}.{suffix}", span, None if whole else crop)


def cut_counts(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """How the clips were cut, and what the checked ones showed, from their committed rows."""
    methods: Counter[str] = Counter()
    sums = Counter({"cut_again": 0, "leak_checked": 0, "leak_frames": 0, "lost_frames": 0})
    for row in rows:
        methods[row["method"]] += 1
        sums["cut_again"] += bool(row["cut_again"])
        if row["leak_frames"] is not None:
            sums.update(leak_checked=1, leak_frames=row["leak_frames"])
            sums["lost_frames"] += row["lost_frames"]
    return {"cuts": {method: methods[method] for method in METHODS}, **sums}


def _call(
    source: Path, orders: Sequence[CutOrder], config: CutsConfig, limits: Limits
) -> Sequence[CutResult | CutFailure] | CutFailure:
    """A result for the first orders, for one at least; or why the whole call failed."""
    coding = Coding(config.crf, config.preset, config.edge_preset)
    limits = limits.of_files(source, writes=tuple({order.out.parent for order in orders}))
    try:
        return run_limited(
            limits, cut_clips, source, orders, config.method, coding, stop_after_s=STOP_AFTER_S
        )
    except MediaError as error:
        return CutFailure(error.reason, error.detail)
    except SandboxFault as fault:
        logging.getLogger(__name__).error("cutting %s failed: %s", source.name, fault)
        return CutFailure("cut_failed", "a fault of the program; see the log")


def checked(
    source: Path,
    clip: Clip,
    order: CutOrder,
    result: CutResult | CutFailure,
    config: CutsConfig,
    limits: Limits,
) -> Cut:
    """The cut, compared with its source if its id is chosen; one that leaks is coded again."""
    if isinstance(result, CutFailure):
        return Cut(clip, order.out, failure=result)
    if clip.kind == "image" or not is_chosen(clip.clip_id, config.leak_share):
        return Cut(clip, order.out, result)
    try:
        leak = run_limited(limits.of_files(source, order.out), measure_leak, source, order)
    except MediaError as error:
        return Cut(clip, order.out, failure=CutFailure(error.reason, error.detail))
    if leak.is_clean:
        return Cut(clip, order.out, result, leak=leak)
    if result.method == "encoded":
        detail = f"{leak.leak_frames} frames leak in, {leak.lost_frames} are lost"
        return Cut(clip, order.out, failure=CutFailure("cut_failed", detail))
    encode = replace(config, method="encode")
    again = _call(source, [order], encode, limits)
    result = again if isinstance(again, CutFailure) else again[0]
    return replace(checked(source, clip, order, result, encode, limits), cut_again=True)
