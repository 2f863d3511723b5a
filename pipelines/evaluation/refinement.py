"""What refining a video does to its spectrum and to its closeness to the truth.

Each measure is a pair: the refined video, and the same base video enlarged by bicubic
interpolation. "off" is the distance of a band's log10 power from that of the true video: detail
that lacks and artefacts that should not be there both count.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from pipelines.evaluation import metrics, spectra
from pipelines.evaluation.metrics import Frames
from pipelines.evaluation.perceptual import feature_distance

_BANDS = {
    "spatial_low": "below 1/16 cycle per pixel",
    "spatial_middle": "1/16 to 1/4 cycle per pixel",
    "spatial_high": "above 1/4 cycle per pixel",
    "temporal_low": "below 3/16 cycle per frame",
    "temporal_middle": "3/16 to 3/8 cycle per frame",
    "temporal_high": "above 3/8 cycle per frame",
}
_HOW = {"refined": "refined", "bicubic": "base enlarged"}

REFINEMENT_MEASURES: dict[str, str] = {
    **{
        f"{how}_{band}_off": f"{words}: log10 power {where}, less the true clip's"
        for how, words in _HOW.items()
        for band, where in _BANDS.items()
    },
    **{
        f"{name}_{how}_{of}": f"{what}, {words}, {unit}"
        for name, what in (("made", "generated video"), ("true", "true clip made small"))
        for how, words in _HOW.items()
        for of, unit in (
            ("psnr_db", "against the true clip, dB"),
            ("feature_distance", "against the true clip in the autoencoder's features"),
        )
    },
}


def bicubic(frames_FHWC: Frames, height_px: int, width_px: int) -> Frames:
    size = (width_px, height_px)
    return np.stack([cv2.resize(f, size, interpolation=cv2.INTER_CUBIC) for f in frames_FHWC])


def measure_spectra(
    base_FHWC: Frames, refined_FHWC: Frames, truth_FHWC: Frames
) -> dict[str, float]:
    """Signed: a positive number is more power than the truth has."""
    truth, values = _bands(truth_FHWC), {}
    enlarged_FHWC = bicubic(base_FHWC, *refined_FHWC.shape[1:3])
    for how, frames_FHWC in (("refined", refined_FHWC), ("bicubic", enlarged_FHWC)):
        for band, power in _bands(frames_FHWC).items():
            values[f"{how}_{band}_off"] = power - truth[band]
    return values


def measure_closeness(
    name: str, base_FHWC: Frames, refined_FHWC: Frames, truth_FHWC: Frames, vae: Any
) -> dict[str, float]:
    """PSNR and feature distance to the truth, refined and enlarged; `name` is "made" or "true"."""
    values = {}
    enlarged_FHWC = bicubic(base_FHWC, *refined_FHWC.shape[1:3])
    for how, frames_FHWC in (("refined", refined_FHWC), ("bicubic", enlarged_FHWC)):
        values[f"{name}_{how}_psnr_db"] = min(metrics.psnr_db(frames_FHWC, truth_FHWC), 99.0)
        values[f"{name}_{how}_feature_distance"] = feature_distance(vae, frames_FHWC, truth_FHWC)
    return values


def _bands(frames_FHWC: Frames) -> dict[str, float]:
    return {
        **{f"spatial_{name}": value for name, value in spectra.spatial_bands(frames_FHWC).items()},
        **{
            f"temporal_{name}": value for name, value in spectra.temporal_bands(frames_FHWC).items()
        },
    }
