"""A film before it is filmed: pure values, drawn from a seed, from which frames and truth follow.

Time is counted in ticks of 1 / fps seconds. A film with a steady rate shows every tick; one with
a variable rate leaves some out, and all frame numbers of its truth are of the frames it shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from pipelines.world.encodings import Encoding
from pipelines.world.scenes import Scene
from pipelines.world.truth import Box, ShotRef

#: What a shot is, and why it must be dropped (a code of records.REASONS).
DROP_REASON_OF_KIND: dict[str, str | None] = {
    "scene": None,
    "short": "too_short",
    "static": "too_still",
    "black": "black",
    "flat": "flat",
    "flashes": "flashes",
    "blurred": "blurred",
    "shaky": "too_shaky",
    "captioned": "overlay_text",
}
TRANSITION_KINDS = ("cut", "dissolve", "fade", "wipe")
WIPE_DIRECTIONS = ("right", "left", "down", "up")


@dataclass(frozen=True)
class Transition:
    """How a shot begins. A cut takes no ticks; the others show both shots for `num_ticks`."""

    kind: str = "cut"
    num_ticks: int = 0
    direction: str = "right"

    def __post_init__(self) -> None:
        if self.kind not in TRANSITION_KINDS or (self.kind == "cut") != (self.num_ticks == 0):
            raise ValueError(f"a {self.kind} of {self.num_ticks} ticks")


@dataclass(frozen=True)
class ShotPlan:
    """One shot: `num_ticks` are those it has to itself, the transitions at its ends excluded."""

    kind: str
    scene: Scene
    num_ticks: int
    lead_in: Transition = Transition()
    words: str = ""
    seed: int = 0
    duplicate_of: ShotRef | None = None

    def __post_init__(self) -> None:
        if self.kind not in DROP_REASON_OF_KIND or self.num_ticks < 1:
            raise ValueError(f"a shot of kind {self.kind!r} and {self.num_ticks} ticks")

    @property
    def must_drop(self) -> str | None:
        if reason := DROP_REASON_OF_KIND[self.kind]:
            return reason
        return "duplicate" if self.duplicate_of else None


@dataclass(frozen=True)
class FilmPlan:
    """A film of `shots` in a picture of `width_px` x `height_px` as displayed.

    `name` is its path below the world's folder, without suffix. A still image is a film of a
    single tick. A film that `reencodes` another (named by its path) is drawn like it, then scaled
    to `scaled_px`, as a re-upload is: drawing anew at that size would be another picture.
    `bar_share` is the part of the height (letterbox) or width (pillarbox) that the two black
    bars take together; `rotation_deg` how far a player turns the stored picture, clockwise.
    """

    name: str
    seed: int
    width_px: int
    height_px: int
    fps: Fraction
    encoding: Encoding
    shots: tuple[ShotPlan, ...]
    variable_frame_rate: bool = False
    rotation_deg: int = 0
    borders: str = "none"
    bar_share: float = 0.0
    watermark: str = ""
    reencodes: str = ""
    scaled_px: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        if not self.shots or self.shots[0].lead_in.kind != "cut":
            raise ValueError(f"{self.name}: a film begins with a shot, not with a transition")

    @property
    def is_still(self) -> bool:
        return self.encoding.is_still

    @property
    def file_name(self) -> str:
        """Path below the world's folder."""
        return f"{self.name}.{self.encoding.extension}"

    @property
    def shown_px(self) -> tuple[int, int]:
        """Width and height as displayed."""
        return self.scaled_px if all(self.scaled_px) else (self.width_px, self.height_px)

    @property
    def picture(self) -> Box:
        """The picture inside the black bars as drawn; even sides, as chroma subsampling wants."""
        if self.borders == "letterbox":
            bar = 2 * round(self.height_px * self.bar_share / 4)
            return Box(0, bar, self.width_px, self.height_px - 2 * bar)
        if self.borders == "pillarbox":
            bar = 2 * round(self.width_px * self.bar_share / 4)
            return Box(bar, 0, self.width_px - 2 * bar, self.height_px)
        return Box(0, 0, self.width_px, self.height_px)

    @property
    def num_ticks(self) -> int:
        return sum(shot.lead_in.num_ticks + shot.num_ticks for shot in self.shots)

    def spans(self) -> tuple[tuple[int, int], ...]:
        """Per shot, the half-open span of ticks that it has to itself."""
        spans, now = [], 0
        for shot in self.shots:
            start = now + shot.lead_in.num_ticks
            now = start + shot.num_ticks
            spans.append((start, now))
        return tuple(spans)

    def shown(self) -> np.ndarray:
        """(num_ticks,) bool: the ticks that become frames.

        A variable rate leaves out about a third, never the first or last of a shot, nor more
        than two in a row.
        """
        shown = np.ones(self.num_ticks, dtype=bool)
        if not self.variable_frame_rate:
            return shown
        rng = np.random.default_rng([self.seed, 7])
        left_out = rng.random(self.num_ticks) < 0.4
        pinned = {edge for start, end in self.spans() for edge in (start, end - 1)}
        for tick in range(2, self.num_ticks):
            if left_out[tick] and tick not in pinned and shown[tick - 2 : tick].any():
                shown[tick] = False
        return shown


def reencoded(
    plan: FilmPlan, name: str, encoding: Encoding, scaled_px: tuple[int, int]
) -> FilmPlan:
    """The same film in another coding and size: every shot repeats the one it shows again."""
    shots = tuple(
        replace(shot, duplicate_of=ShotRef(plan.file_name, index))
        for index, shot in enumerate(plan.shots)
    )
    return replace(
        plan,
        name=name,
        encoding=encoding,
        scaled_px=scaled_px,
        shots=shots,
        reencodes=plan.file_name,
    )
