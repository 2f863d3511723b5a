"""Which clips a cascade is judged on: those its checkpoints never saw, where there are any."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import numpy as np

from pipelines.config import RequestError
from pipelines.evaluation.metrics import Frames, prompted_direction
from pipelines.media import read_clip_frames
from pipelines.records import Clip
from pipelines.shard_reader import read_sample
from pipelines.storage import Store


def choose_clips(
    clips: Sequence[Clip], seen: Collection[str], count: int, only_moving: bool = False
) -> list[Clip]:
    """`count` kept video clips with a caption, unseen ones first, in an order that depends on
    their ids alone; with `only_moving`, those whose caption names a direction. Raises
    RequestError when the dataset has none."""
    usable = [c for c in clips if c.verdict == "kept" and c.kind == "video" and c.caption]
    if not usable:
        raise RequestError("--dataset: no kept video clip with a caption; nothing to evaluate on")
    if only_moving:
        usable = [c for c in usable if prompted_direction(c.caption or "")]
        if not usable:
            raise RequestError("--only-moving: no kept clip's caption names a direction")

    def rank(clip: Clip) -> tuple[bool, str]:
        return clip.clip_id in seen, hashlib.sha256(clip.clip_id.encode()).hexdigest()

    return sorted(usable, key=rank)[:count]


def first_frame(dataset: Store, clip: Clip) -> np.ndarray:
    """The clip's first frame out of its shard, uint8 RGB (H, W, 3), borders removed."""
    return _frames(dataset, clip, clip.crop_w_px, clip.crop_h_px, clip.fps, 1)[0]


def true_frames(
    dataset: Store, clip: Clip, width_px: int, height_px: int, fps: float, count: int
) -> Frames | None:
    """What the clip really shows at the rate and size of a generated video, (F, H, W, 3); None
    when it is shorter."""
    frames_FHWC = _frames(dataset, clip, width_px, height_px, fps, count)
    return frames_FHWC if len(frames_FHWC) == count else None


def _frames(
    dataset: Store, clip: Clip, width_px: int, height_px: int, fps: float, count: int
) -> Frames:
    return read_clip_frames(
        read_sample(dataset, clip),
        fps=fps,
        width_px=width_px,
        height_px=height_px,
        max_frames=count,
    )
