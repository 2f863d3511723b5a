"""One small past: two datasets' worth of footage, latents, two trainings, a video."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipelines.records import Clip
from tests.pipelines.lineage import small_world as world

SOURCES = ("alpha.mp4", "beta film.mp4", "gamma.mp4")


@dataclass(frozen=True)
class Past:
    """`base` has steps 10 (alpha only) and 20 (alpha again, beta); `refine` starts from it and
    saw gamma alone."""

    root: Path
    clips: list[Clip]
    dataset: dict[str, str]
    base: list[dict[str, str]] = field(default_factory=list)
    refine: dict[str, str] = field(default_factory=dict)

    def clips_of(self, source: str, verdict: str = "kept") -> list[Clip]:
        wanted = world.source_id(source)
        return [c for c in self.clips if c.source_id == wanted and c.verdict == verdict]


@pytest.fixture
def past(tmp_path: Path) -> Past:
    root = tmp_path / "out [1]"  # a name that a glob would take for a pattern
    world.write_footage(root / "footage", SOURCES)
    clips = world.make_clips(SOURCES)
    digest = world.write_dataset(root / "dataset-a", SOURCES, clips)
    made = Past(root, clips, {"uri": str(root / "dataset-a"), "digest": digest})
    world.write_latents(root / "latents-a", clips, made.dataset)
    alpha, beta, gamma = (made.clips_of(name) for name in SOURCES)

    first = {c.clip_id: (c.source_id, 3, 2) for c in alpha}
    one = world.write_checkpoint(root / "base-x", 10, first, dataset=made.dataset)
    again = {alpha[0].clip_id: (alpha[0].source_id, 12, 5)}
    again |= {c.clip_id: (c.source_id, 15, 1) for c in beta}
    two = world.write_checkpoint(
        root / "base-x", 20, again, dataset=made.dataset, parent=one["digest"]
    )
    last = {c.clip_id: (c.source_id, 4, 1) for c in gamma}
    refine = world.write_checkpoint(
        root / "refine-x", 10, last, dataset=made.dataset, base=two, stage="refine"
    )
    record = {
        "settings": {"prompt": "a red circle", "seed": 7},
        "checkpoints": {"base": two["digest"], "refine": refine["digest"]},
    }
    (root / "footage" / "alpha.json").write_text('{"cuts": [30]}')  # ground truth, not a record
    (root / "video-x.mp4").write_bytes(b"pictures")
    (root / "video-x.json").write_text(json.dumps(record))
    made.base.extend([one, two])
    made.refine.update(refine)
    return made
