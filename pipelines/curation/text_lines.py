"""Finds lines of standing letters in a few frames of a shot, in about two milliseconds.

Letters are thin strokes that stand still while the scene moves. So each frame is reduced to what
is thinner than a few pixels (bright strokes and dark ones apart), and only what every frame shows
stays. Strokes that stand side by side make a candidate line; thirteen simple measures of it (how
often a row crosses strokes, how even their heights are, how empty its surroundings, ...) and a
logistic curve over them and their squares say whether it reads like text.

`tests/benchmarks/fit_text_lines.py` fitted the curve: letters in ten fonts and the world's own
captions and watermarks, over scenes, real film, and static patterns made to deceive (stripes,
checks, bricks, windows, leaves, grass, branches, fences). It prints `WEIGHTS`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

Box = tuple[int, int, int, int]  # x, y, w, h in px

_THIN = np.ones((7, 7), np.uint8)  # thinner than this is a stroke, px
_GAP = np.ones((3, 8), np.uint8)  # strokes this near are of one line, at half size, px
_LEVELS = (28, 56, 100)  # a busy ground hides a line at one level and leaves it at another
_LEAST_H, _LEAST_W, _LEAST_ASPECT = 5, 14, 1.5
_LARGEST_SHARE = 4  # a line, or lines that touch, are at most 1/4 of a usual picture's height
_LEAST_SCORE = 2.0  # log odds of being text
_REACH = 3.5  # deviations beyond which a measure says no more

#: measure: (mean, deviation, weight of the deviation from the mean, weight of its square)
WEIGHTS: dict[str, tuple[float, float, float, float]] = {
    "strength": (0.0694, 0.509, 1.6136, 0.2973),
    "strokes_per_height": (0.9976, 1.0349, 3.2648, -0.4945),
    "even_rows": (0.8402, 0.1621, 0.274, -0.21),
    "parts_per_height": (3.1132, 4.6771, 2.104, -0.4511),
    "around_on": (0.0157, 0.0254, -1.0035, 0.1917),
    "period": (0.1258, 0.2336, -0.0997, -0.5274),
    "empty_columns": (0.3036, 0.2545, 0.8107, 0.0921),
    "log_height": (0.0658, 0.5718, -0.0196, -0.4401),
    "log_aspect": (1.3793, 0.6727, 0.9098, -0.3667),
    "row_spread": (0.554, 0.3154, 0.4942, -0.116),
    "height_spread": (0.1855, 0.2126, 0.3689, -0.7011),
    "around": (-2.3371, 0.7841, -0.9101, -0.2212),
    "filled": (0.2405, 0.1786, 1.0043, -0.4026),
}
BIAS = 2.191


def text_lines(luma_frames: Sequence[np.ndarray]) -> list[Box]:
    """Boxes of lines of standing text in frames (h, w) uint8 of one size; they may overlap."""
    return [box for box, measures in candidates(luma_frames) if score(measures) > _LEAST_SCORE]


def score(measures: Sequence[float]) -> float:
    """Log odds that a candidate is text, from its measures in the order of `WEIGHTS`."""
    total = BIAS
    for value, (mean, deviation, weight, of_square) in zip(measures, WEIGHTS.values(), strict=True):
        z = min(max((value - mean) / deviation, -_REACH), _REACH)
        total += weight * z + of_square * z * z
    return total


def candidates(luma_frames: Sequence[np.ndarray]) -> Iterator[tuple[Box, list[float]]]:
    """Every group of strokes shaped like a line, with its measures.

    Looked for twice: at full size, and at half size for letters with broad strokes.
    """
    for shrink in (1, 2):
        frames = [_shrunk(luma, shrink) for luma in luma_frames]
        if min(frames[0].shape) < 4 * _LEAST_H:
            return
        for strokes in standing_strokes(frames):
            for level in _LEVELS:
                mask = cv2.threshold(strokes, level, 255, cv2.THRESH_BINARY)[1]
                for x, y, w, h in _lines_in(mask, least_h=_LEAST_H if shrink == 1 else 12):
                    box = (x * shrink, y * shrink, w * shrink, h * shrink)
                    yield box, measures_of(strokes, mask, (x, y, w, h))


def standing_strokes(luma_frames: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(h, w) uint8, twice: by how much bright strokes, and dark ones, stand out in every frame."""
    bright, dark = (
        [cv2.morphologyEx(luma, how, _THIN) for luma in luma_frames]
        for how in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT)
    )
    return np.minimum.reduce(bright), np.minimum.reduce(dark)


def _lines_in(mask: np.ndarray, least_h: int) -> Iterator[Box]:
    """Boxes of strokes that stand side by side. Text is never cut by the top or bottom edge."""
    height, width = mask.shape
    on = cv2.countNonZero(mask)
    if on < 24 or on > 0.3 * mask.size:
        return
    half = cv2.resize(mask, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    half = cv2.threshold(half, 0, 255, cv2.THRESH_BINARY)[1]
    joined = cv2.morphologyEx(half, cv2.MORPH_CLOSE, _GAP)
    count, _, boxes, _ = cv2.connectedComponentsWithStats(joined, connectivity=4)
    for x, y, w, h in 2 * boxes[1:count, :4]:
        if h < _LEAST_H or w < _LEAST_W or h * _LARGEST_SHARE > max(height, width // 2) or w < h:
            continue
        dx, dy, w, h = cv2.boundingRect(mask[y : y + h, x : x + w])
        x, y = int(x + dx), int(y + dy)
        if 0 < y < height - h and h >= least_h and w >= max(_LEAST_W, _LEAST_ASPECT * h):
            yield x, y, w, h


def measures_of(strokes: np.ndarray, mask: np.ndarray, box: Box) -> list[float]:
    """The measures of a candidate, in the order of `WEIGHTS`. `mask` is 0 or 255."""
    x, y, w, h = box
    inside, levels = mask[y : y + h, x : x + w], strokes[y : y + h, x : x + w]
    on = cv2.countNonZero(inside)
    strength = cv2.mean(levels, mask=inside)[0]
    is_on = inside > 0
    crossed = (is_on[:, 1:] != is_on[:, :-1]).sum(axis=1) / 2  # strokes in each row
    usual = float(np.median(crossed[h // 4 : h - h // 4]))
    count, _, parts, _ = cv2.connectedComponentsWithStats(inside, connectivity=8)
    part_h = parts[1:count, cv2.CC_STAT_HEIGHT]
    tall = part_h[part_h >= 0.5 * h]
    pad = max(3, h // 2)
    rows, columns = slice(max(0, y - pad), y + h + pad), slice(max(0, x - pad), x + w + pad)
    around_px = max(1, mask[rows, columns].size - inside.size)
    around_on = cv2.countNonZero(mask[rows, columns]) - on
    around = (cv2.sumElems(strokes[rows, columns])[0] - cv2.sumElems(levels)[0]) / around_px
    column_on = is_on.sum(axis=0)
    return [
        float(np.log(strength / 64)),
        usual * h / w,
        float((crossed >= 0.5 * usual).mean()),
        (count - 1) * h / w,
        around_on / around_px,
        _period(column_on.astype(np.float32), 3 * h),
        float((column_on == 0).mean()),
        float(np.log(h / 12)),
        float(np.log(w / h)),
        float(crossed.std() / (crossed.mean() + 0.1)),
        float(tall.std() / h) if len(tall) else 0.5,
        float(np.log(around / strength + 0.01)),
        on / inside.size,
    ]


def _period(profile: np.ndarray, longest: int) -> float:
    """How well the profile repeats itself, up to 1: stripes do, letters do not."""
    length = len(profile)
    spectrum = np.fft.rfft(profile - profile.mean(), 2 * length)
    alike = np.fft.irfft(np.abs(spectrum) ** 2, 2 * length)[:length]
    shifted = alike[3 : max(4, min(length // 2, longest))] / max(1e-6, alike[0])
    first_dip = int(np.argmin(shifted[: max(1, longest // 3)]))
    return float(shifted[first_dip:].max())


def _shrunk(luma_HW: np.ndarray, by: int) -> np.ndarray:
    if by == 1:
        return luma_HW
    size = luma_HW.shape[1] // by, luma_HW.shape[0] // by
    return cv2.resize(luma_HW, size, interpolation=cv2.INTER_AREA)
