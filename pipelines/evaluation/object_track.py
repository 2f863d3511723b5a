"""Where the object named in a caption is, frame by frame, told by its colour.

The generated world's captions begin with an article, a colour and a shape. The image given shows
the object in that colour before a dull ground; every pixel of the video is then as much "object"
as it lies on the way from the ground's colour to the object's. Captions of other worlds name no
such object, and their videos are not tracked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.metrics import DIRECTIONS, Frames
from pipelines.world.scenes import COLOUR_RGB

Mask = NDArray[np.bool_]

_NEAR_LEVELS = 75.0  # of a colour's nominal RGB, for the first guess at the object
_LEAST_PIXELS = 6
_KEPT_AREA = (0.3, 3.0)  # of the first frame's: outside, the object is lost or smeared
LEAST_TRAVEL = 0.03  # frame widths; less is not called moving


@dataclass(frozen=True)
class Look:
    """The object's and the ground's mean colour, and the object's place in the image given."""

    object_rgb: NDArray[np.float64]
    ground_rgb: NDArray[np.float64]
    mask_HW: Mask


@dataclass(frozen=True)
class Track:
    """Centroids in frame widths, right and down positive, (F, 2), and areas in pixels, (F,).

    A frame in which the object is lost has a centroid of NaN.
    """

    centres_F2: NDArray[np.float64]
    areas_F: NDArray[np.float64]
    masks_FHW: Mask

    @property
    def kept_share(self) -> float:
        """Share of the frames in which the object is there."""
        return float(np.isfinite(self.centres_F2[:, 0]).mean())

    def travel(self) -> tuple[float, float]:
        """From the first frame to the last, in frame widths; NaN when lost in either."""
        dx, dy = self.centres_F2[-1] - self.centres_F2[0]
        return float(dx), float(dy)


def look_of(image_HWC: Frames, caption: str) -> Look | None:
    """What the captioned object looks like in the image; None when no such object is found."""
    colour = next((word for word in caption.lower().split()[:4] if word in COLOUR_RGB), None)
    if colour is None:
        return None
    pixels = image_HWC.astype(np.float64)
    nominal = np.array(COLOUR_RGB[colour], dtype=np.float64)
    guess_HW = np.linalg.norm(pixels - nominal, axis=-1) < _NEAR_LEVELS
    if not _LEAST_PIXELS <= guess_HW.sum() < 0.5 * guess_HW.size:
        return None
    object_rgb, ground_rgb = np.median(pixels[guess_HW], axis=0), np.median(pixels[~guess_HW], 0)
    return Look(object_rgb, ground_rgb, _mask(pixels, object_rgb, ground_rgb))


def track(frames_FHWC: Frames, look: Look) -> Track:
    """Follows the object; the frames may be of another size than the image it was found in."""
    pixels = frames_FHWC.astype(np.float64)
    masks_FHW = _mask(pixels, look.object_rgb, look.ground_rgb)
    areas_F = masks_FHW.sum(axis=(1, 2)).astype(np.float64)
    height_px, width_px = masks_FHW.shape[1:]
    expected = look.mask_HW.mean() * height_px * width_px
    rows, columns = np.mgrid[0:height_px, 0:width_px]
    there_F = (areas_F >= _KEPT_AREA[0] * expected) & (areas_F <= _KEPT_AREA[1] * expected)
    safe_F = np.maximum(areas_F, 1)
    centres_F2 = np.stack(
        [(masks_FHW * grid).sum(axis=(1, 2)) / safe_F / width_px for grid in (columns, rows)], 1
    )
    centres_F2[~there_F] = np.nan
    return Track(centres_F2, areas_F, masks_FHW)


def moved_as_said(travel: tuple[float, float], direction: str) -> bool:
    """True when the travel lies within 45 degrees of the direction and is a motion at all."""
    dx, dy = travel
    x, y = DIRECTIONS[direction]
    along, across = dx * x + dy * y, abs(dx * y) + abs(dy * x)
    return bool(along >= LEAST_TRAVEL and along >= across)  # NaN compares false


def identity(found: Track) -> float:
    """Mean overlap (intersection over union) of the object in each later frame with that in the
    first, laid on top of each other at their centroids; 0 where it is lost. 1 = the same shape."""
    if not np.isfinite(found.centres_F2[0]).all():
        return 0.0
    width_px = found.masks_FHW.shape[2]
    first_HW, overlaps = found.masks_FHW[0], []
    for mask_HW, centre in zip(found.masks_FHW[1:], found.centres_F2[1:], strict=True):
        if not np.isfinite(centre).all():
            overlaps.append(0.0)
            continue
        dx, dy = np.round((found.centres_F2[0] - centre) * width_px).astype(int)
        moved_HW = _shifted(mask_HW, dx, dy)
        both = (moved_HW & first_HW).sum()
        overlaps.append(float(both / max(1, (moved_HW | first_HW).sum())))
    return float(np.mean(overlaps))


def _mask(pixels: NDArray[np.float64], object_rgb: NDArray, ground_rgb: NDArray) -> Mask:
    """More than half of the way from the ground's colour to the object's, and not far beside it."""
    way = object_rgb - ground_rgb
    length = max(float(way @ way), 1.0)
    offset = pixels - ground_rgb
    share = offset @ way / length
    beside = np.linalg.norm(offset - share[..., None] * way, axis=-1)
    return np.asarray((share > 0.5) & (beside < 0.6 * np.sqrt(length)), dtype=bool)


def _shifted(mask_HW: Mask, dx: int, dy: int) -> Mask:
    """Moved right by dx and down by dy; what comes in from outside is empty."""
    height_px, width_px = mask_HW.shape
    out = np.zeros_like(mask_HW)
    rows, columns = np.nonzero(mask_HW)
    rows, columns = rows + dy, columns + dx
    inside = (rows >= 0) & (rows < height_px) & (columns >= 0) & (columns < width_px)
    out[rows[inside], columns[inside]] = True
    return out
