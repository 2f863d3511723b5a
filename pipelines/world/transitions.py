"""From one shot to the next: how two pictures mix on the way through a gradual transition."""

from __future__ import annotations

import numpy as np

from pipelines.world.plan import Transition

#: Part of a fade that the old shot takes to darken, and the new one to brighten; between: black.
_FADE_PART = 0.4
#: Soft edge of a wipe, as a part of the way it travels.
_WIPE_EDGE = 0.04


def mix(transition: Transition, step: int, old_HWC: np.ndarray, new_HWC: np.ndarray) -> np.ndarray:
    """Frame `step` of the transition, uint8 (H, W, 3). No step shows one shot alone."""
    progress = (step + 1) / (transition.num_ticks + 1)
    if transition.kind == "fade":
        old_weight = max(0.0, 1.0 - progress / _FADE_PART)
        new_weight = max(0.0, 1.0 - (1.0 - progress) / _FADE_PART)
        return _weighted(old_HWC, old_weight, new_HWC, new_weight)
    if transition.kind == "dissolve":
        return _weighted(old_HWC, 1.0 - progress, new_HWC, progress)
    new_share = _wiped(transition.direction, progress, *old_HWC.shape[:2])
    return _weighted(old_HWC, 1.0 - new_share, new_HWC, new_share)


def _weighted(
    old_HWC: np.ndarray,
    old_weight: float | np.ndarray,
    new_HWC: np.ndarray,
    new_weight: float | np.ndarray,
) -> np.ndarray:
    mixed = old_HWC * np.float32(old_weight) + new_HWC * np.float32(new_weight)
    return np.round(mixed).astype(np.uint8)


def _wiped(direction: str, progress: float, height_px: int, width_px: int) -> np.ndarray:
    """Share of the new shot at each place, (1, W, 1) or (H, 1, 1): an edge that travels across."""
    along_x = direction in ("left", "right")
    place = np.linspace(0.0, 1.0, width_px if along_x else height_px, dtype=np.float32)
    if direction in ("left", "up"):
        place = 1.0 - place
    edge = progress * (1.0 + _WIPE_EDGE) - _WIPE_EDGE / 2
    share = np.clip((edge - place) / _WIPE_EDGE + 0.5, 0.0, 1.0)
    return share[None, :, None] if along_x else share[:, None, None]
