"""How close what was found is to what is true: shot boundaries, boxes, sets."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass

from pipelines.world.truth import Box, FilmTruth, GradualSpan


@dataclass(frozen=True)
class Score:
    """Counts of a comparison; scores of several films add up with `+`."""

    found_right: int = 0
    found_wrong: int = 0
    missed: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(
            self.found_right + other.found_right,
            self.found_wrong + other.found_wrong,
            self.missed + other.missed,
        )

    @property
    def precision(self) -> float:
        """1 when nothing was found: nothing found was wrong."""
        found = self.found_right + self.found_wrong
        return self.found_right / found if found else 1.0

    @property
    def recall(self) -> float:
        """1 when there was nothing to find."""
        there = self.found_right + self.missed
        return self.found_right / there if there else 1.0

    @property
    def f1(self) -> float:
        total = 2 * self.found_right + self.found_wrong + self.missed
        return 2 * self.found_right / total if total else 1.0


@dataclass(frozen=True)
class ShotScore:
    """Boundaries of a film: its hard cuts, its gradual transitions, and both together.

    A boundary that matches neither counts against `hard`, unless the finder said that it is
    gradual; then against `gradual`. Always against `all`.
    """

    hard: Score = Score()
    gradual: Score = Score()

    @property
    def all(self) -> Score:
        return self.hard + self.gradual

    def __add__(self, other: ShotScore) -> ShotScore:
        return ShotScore(self.hard + other.hard, self.gradual + other.gradual)


def shot_f1(
    found_boundaries: Sequence[int],
    truth: FilmTruth,
    tolerance_frames: int = 2,
    found_gradual: Collection[int] = (),
) -> ShotScore:
    """Compares found boundaries (first frame of each new shot, frame 0 left out) with the truth.

    A hard cut is found by one boundary at most `tolerance_frames` away. A gradual transition is
    found by a boundary inside it, the tolerance added at both ends; as a finder may name both its
    start and its end, a second one there is neither right nor wrong, a third is wrong.
    `found_gradual` are those of the found boundaries that the finder calls gradual.
    """
    found = sorted(set(found_boundaries))
    used = matched_cuts(found, truth.cuts, tolerance_frames)
    hard_right = len(used)
    left = [frame for frame in found if frame not in used]
    gradual_right, left = _absorbed(left, truth.gradual, tolerance_frames)
    wrong_gradual = sum(frame in found_gradual for frame in left)
    return ShotScore(
        Score(hard_right, len(left) - wrong_gradual, len(truth.cuts) - hard_right),
        Score(gradual_right, wrong_gradual, len(truth.gradual) - gradual_right),
    )


def matched_cuts(
    found: Sequence[int], cuts: Sequence[int], tolerance_frames: int
) -> dict[int, int]:
    """The found boundaries that are cuts, each with its cut; as many pairs as there can be.

    Both in rising order: giving each cut the earliest boundary in reach is then the best choice.
    """
    pairs: dict[int, int] = {}
    at = 0
    for cut in cuts:
        while at < len(found) and found[at] < cut - tolerance_frames:
            at += 1
        if at < len(found) and found[at] <= cut + tolerance_frames:
            pairs[found[at]] = cut
            at += 1
    return pairs


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two rectangles, in [0, 1]."""
    across = min(a.x + a.w, b.x + b.w) - max(a.x, b.x)
    down = min(a.y + a.h, b.y + b.h) - max(a.y, b.y)
    shared = max(0, across) * max(0, down)
    union = a.area_px + b.area_px - shared
    return shared / union if union else 1.0


def set_score(found: Collection[Hashable], true: Collection[Hashable]) -> Score:
    """Of a set of claims (e.g. "this clip is a duplicate"): right, wrong and missed."""
    right = len(set(found) & set(true))
    return Score(right, len(set(found)) - right, len(set(true)) - right)


def _absorbed(
    found: Sequence[int], spans: Sequence[GradualSpan], tolerance_frames: int
) -> tuple[int, list[int]]:
    """How many spans were found, and the boundaries that belong to none."""
    left, hits = [], dict.fromkeys(range(len(spans)), 0)
    for frame in found:
        near = [
            index
            for index, span in enumerate(spans)
            if span.start - tolerance_frames <= frame <= span.end + tolerance_frames
        ]
        if near and hits[near[0]] < 2:
            hits[near[0]] += 1
        else:
            left.append(frame)
    return sum(count > 0 for count in hits.values()), left
