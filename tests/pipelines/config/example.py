"""A configuration with a field and settings of every kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pipelines.config import required, setting


@dataclass(frozen=True)
class Shots:
    threshold: float = setting(3.0, "how different two frames are", unit="sigma", low=0, high=100)
    detector: Literal["adaptive", "content"] = setting("adaptive", "which detector")
    sizes_px: tuple[int, ...] = setting((1, 2), "sizes", unit="px")
    limit: int | None = setting(None, "at most so many", low=1)
    guard: bool = setting(True, "take guard frames off")


@dataclass(frozen=True)
class Example:
    footage: str = required("where the films lie")
    shots: Shots = field(default_factory=Shots)
