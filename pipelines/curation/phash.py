"""A fingerprint of a clip that survives another codec, bitrate or size."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

FRAMES = 8
_SIDE, _KEPT = 32, 8


def frame_hash(luma_HW: np.ndarray) -> int:
    """64 bits: signs of the low spatial frequencies against their median (DCT hash).

    The picture is shrunk to 32x32 first; its mean is left out.
    """
    small = cv2.resize(luma_HW, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(cv2.GaussianBlur(small, (3, 3), 0))[:_KEPT, :_KEPT].reshape(-1)
    low[0] = np.median(low[1:])
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def clip_hash(luma_frames: Sequence[np.ndarray]) -> str:
    """Hex of the hashes of `FRAMES` pictures spread over the clip, one after another.

    A still's one picture, or too few, are repeated to the same length.
    """
    hashes = [frame_hash(luma) for luma in luma_frames]
    spread = [hashes[i * len(hashes) // FRAMES] for i in range(FRAMES)]
    return "".join(f"{value:016x}" for value in spread)
