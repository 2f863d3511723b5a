"""A fingerprint of a clip that survives another codec, bitrate, size, rate, and a small trim.

It holds the low spatial frequencies of the clip's pictures, a hex digit each: digits keep how
strong a frequency is, where a hash of signs keeps noise as if it were a pattern. It has three
parts. The usual colour tells apart scenes that differ in the tint of their ground alone. What
stands, the mean of the pictures, tells scenes apart. What moves, how each picture differs from
that mean, tells apart two takes of one scene, such as the same speaker in the same chair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

FRAMES = 8
_COLOUR_FRAMES = 3
_SIDE = 32
_LUMA_TERMS, _COLOUR_TERMS = 32, 16
_COLOUR_WEIGHT = 2.0
_EVENED = 0.7  # exponent that keeps a few strong frequencies from deciding alone
_DIGIT_RANGE = 3.0  # standard deviations that the largest digit stands for
_STILL = 2.0  # terms smaller than this on average are coding noise, not motion
_GREY = 128
_NONE = 8  # the digit of a frequency that is not there
_MOVING_DIGITS = FRAMES * _LUMA_TERMS


@dataclass(frozen=True)
class Fingerprint:
    """`colour` (2,) int16, Cb and Cr; `standing` and `moving` int8, -8 .. 7, any length.

    `moving` is all 0 where nothing moves.
    """

    colour: np.ndarray
    standing: np.ndarray
    moving: np.ndarray


def clip_hash(luma_frames: Sequence[np.ndarray], rgb_frames: Sequence[np.ndarray] = ()) -> str:
    """Two hex digits each of the median Cb and Cr, the standing digits, the moving ones.

    `luma_frames` (h, w) uint8 and `rgb_frames` (h, w, 3) uint8 are in order of time, the bars cut
    off; too few (a still has one) are repeated. Without `rgb_frames` the colour is left out.
    """
    terms_FT = np.stack([_terms(f, _LUMA_TERMS + 1)[1:] for f in _spread(luma_frames, FRAMES)])
    standing_T = terms_FT.mean(axis=0)
    moving_FT = terms_FT - standing_T
    if float(np.sqrt(np.mean(moving_FT**2))) < _STILL:
        moving_FT = np.zeros_like(moving_FT)
    planes = [_colour_planes(rgb) for rgb in _spread(rgb_frames, _COLOUR_FRAMES)]
    by_colour = list(zip(*planes, strict=True))
    usual = [float(np.median(np.stack(frames))) for frames in by_colour] or [0.0, 0.0]
    tints = [
        _COLOUR_WEIGHT * np.mean([_terms(plane, _COLOUR_TERMS) for plane in frames], axis=0)
        for frames in by_colour
    ]
    for tint in tints:
        tint[0] /= 4  # the mean is a few times larger than all else, and `usual` has it
    return (
        "".join(f"{int(level) + _GREY:02x}" for level in usual)
        + _digits(np.concatenate([standing_T, *tints]))
        + _digits(moving_FT.reshape(-1))
    )


def unpacked(text: str) -> Fingerprint:
    """A text of `clip_hash`; one that is too short to hold what moves is all standing."""
    colour = np.array([int(text[:2], 16), int(text[2:4], 16)], np.int16)
    digits = _DIGIT_OF[np.frombuffer(text[4:].encode("ascii"), np.uint8)]
    moving_from = len(digits) - _MOVING_DIGITS
    if moving_from <= 0:
        return Fingerprint(colour, digits, np.zeros(_MOVING_DIGITS, np.int8))
    return Fingerprint(colour, digits[:moving_from], digits[moving_from:])


_DIGIT_OF = np.zeros(256, np.int8)
for _value, _digit in enumerate("0123456789abcdef"):
    _DIGIT_OF[ord(_digit)] = _value - _NONE


def _digits(terms: np.ndarray) -> str:
    evened = np.sign(terms) * np.abs(terms) ** _EVENED
    spread = max(float(np.sqrt(np.mean(evened**2))), 1e-6)
    levels = np.clip(np.round(evened * (7 / _DIGIT_RANGE / spread)), -7, 7).astype(int)
    return "".join(f"{level + _NONE:x}" for level in levels)


def _spread(frames: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    return [frames[i * len(frames) // count] for i in range(count)] if len(frames) else []


def _colour_planes(rgb_HWC: np.ndarray) -> list[np.ndarray]:
    """Cb and Cr around 0, float32, small."""
    small = cv2.resize(rgb_HWC, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    _, red, blue = cv2.split(cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb))
    return [plane.astype(np.float32) - _GREY for plane in (blue, red)]


def _terms(plane: np.ndarray, count: int) -> np.ndarray:
    """The first frequencies of the plane shrunk to 32x32, lowest first; the mean is the first."""
    small = cv2.resize(plane, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    return cv2.dct(small.astype(np.float32))[_lowest(count)]


@cache
def _lowest(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the lowest frequencies of a square transform, diagonal by diagonal."""
    places = sorted(np.ndindex(_SIDE, _SIDE), key=lambda at: (sum(at), max(at), at[0]))[:count]
    rows, columns = zip(*places, strict=True)
    return np.array(rows), np.array(columns)
