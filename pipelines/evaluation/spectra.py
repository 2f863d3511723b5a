"""How much a video holds at each spatial and temporal frequency, against the true video.

Shapes: frames are (F, H, W, 3) uint8; spectra are log10 power.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.metrics import Frames

# Upper ends of the bands, in cycles per pixel and cycles per frame; "high" is what lies above.
SPATIAL_BANDS = {"low": 1 / 16, "middle": 1 / 4}
TEMPORAL_BANDS = {"low": 3 / 16, "middle": 3 / 8}


def luma(frames_FHWC: Frames) -> NDArray[np.float64]:
    return np.asarray(frames_FHWC.astype(np.float64) @ np.array([0.299, 0.587, 0.114]))


def spatial_power(frames_FHWC: Frames) -> tuple[NDArray, NDArray]:
    """(radius in cycles per pixel (H, W), power averaged over frames (H, W)) of the luma."""
    gray = luma(frames_FHWC)
    # The window keeps the jump between opposite edges out of the high band.
    window = np.outer(np.hanning(gray.shape[1]), np.hanning(gray.shape[2]))
    power = np.abs(np.fft.fft2((gray - gray.mean(axis=(1, 2), keepdims=True)) * window)) ** 2
    fy, fx = np.fft.fftfreq(gray.shape[1])[:, None], np.fft.fftfreq(gray.shape[2])[None, :]
    return np.hypot(fy, fx), power.mean(axis=0)


def temporal_power(frames_FHWC: Frames) -> tuple[NDArray, NDArray]:
    """(cycles per frame (K,), power of the luma's course averaged over places (K,)), without
    what stands still (frequency 0)."""
    gray = luma(frames_FHWC)
    power = np.abs(np.fft.rfft(gray - gray.mean(axis=0), axis=0)) ** 2
    return np.fft.rfftfreq(len(gray))[1:], power.mean(axis=(1, 2))[1:]


def banded(frequency: NDArray, power: NDArray, bands: dict[str, float]) -> dict[str, float]:
    """log10 of the mean power per band: "low", "middle", "high"; a band that holds no frequency
    (a video of few frames) is left out."""
    edges = [0.0, *bands.values(), np.inf]
    values = {}
    for name, low, high in zip([*bands, "high"], edges[:-1], edges[1:], strict=True):
        inside = (frequency >= low) & (frequency < high) & (frequency > 0)
        if inside.any():
            values[name] = float(np.log10(power[inside].mean() + 1e-6))
    return values


def spatial_bands(frames_FHWC: Frames) -> dict[str, float]:
    return banded(*spatial_power(frames_FHWC), SPATIAL_BANDS)


def temporal_bands(frames_FHWC: Frames) -> dict[str, float]:
    return banded(*temporal_power(frames_FHWC), TEMPORAL_BANDS)
