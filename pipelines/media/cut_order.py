"""What a cut is asked for, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

#: `smart` copies coded pictures where that is exact; `encode` encodes every picture again.
Method = Literal["smart", "encode"]


@dataclass(frozen=True)
class Crop:
    """A rectangle in displayed source pixels."""

    x_px: int
    y_px: int
    w_px: int
    h_px: int


@dataclass(frozen=True)
class FrameSpan:
    """Frames [start_frame, end_frame), shown from `start_s` to `end_s` after the first picture."""

    start_frame: int
    end_frame: int
    start_s: float
    end_s: float

    @property
    def num_frames(self) -> int:
        return self.end_frame - self.start_frame


@dataclass(frozen=True)
class CutOrder:
    """One clip to be written to `out`; `crop` None: the whole picture."""

    out: Path
    span: FrameSpan
    crop: Crop | None = None


@dataclass(frozen=True)
class Coding:
    """How pictures that have to be encoded again are (x264).

    Edges are few: for them `superfast` takes 0.6 of veryfast's time, and 1.5 times its bytes.
    """

    crf: int = 18
    preset: str = "veryfast"
    edge_preset: str = "superfast"


@dataclass(frozen=True)
class CutResult:
    """`width_px` x `height_px` of the clip's picture; `sha256` of the file's bytes.

    `method` is copied (every coded picture is the source's), copied_with_edges (some at the ends
    were encoded again), or encoded (all were).
    """

    num_frames: int
    width_px: int
    height_px: int
    size_bytes: int
    sha256: str
    method: str = "encoded"


@dataclass(frozen=True)
class CutFailure:
    """Why there is no clip: the fields of the MediaError."""

    reason: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason
