"""Which clips a cascade is judged on: those its checkpoints never saw, where there are any."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

from pipelines.config import RequestError
from pipelines.records import Clip


def choose_clips(clips: Sequence[Clip], seen: Collection[str], count: int) -> list[Clip]:
    """`count` kept video clips with a caption, unseen ones first, in an order that depends on
    their ids alone. Raises RequestError when the dataset has none."""
    usable = [c for c in clips if c.verdict == "kept" and c.kind == "video" and c.caption]
    if not usable:
        raise RequestError("--dataset: no kept video clip with a caption; nothing to evaluate on")

    def rank(clip: Clip) -> tuple[bool, str]:
        return clip.clip_id in seen, hashlib.sha256(clip.clip_id.encode()).hexdigest()

    return sorted(usable, key=rank)[:count]
