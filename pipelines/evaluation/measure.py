"""The numbers of one generated video, and their summary over many."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from pipelines.evaluation import metrics, object_track
from pipelines.evaluation.metrics import Frames
from pipelines.evaluation.refinement import REFINEMENT_MEASURES

# (name, what it says): the order of the table and of the plots.
MEASURES: dict[str, str] = {
    "first_frame_psnr_db": "first frame of the base video against the image given, dB",
    "first_frame_ssim": "the same as structural similarity, 1 = equal",
    "prompt_similarity": "mean cosine of the frames with the prompt",
    "image_similarity": "mean cosine of the frames with the image given",
    "temporal_consistency": "mean cosine of consecutive frames",
    "warp_error": "difference of consecutive frames after their flow, 0-1, less is better",
    "direction_right": "share of prompts with a direction whose motion follows it",
    "object_direction_right": "the same by following the object named, 0 where it is lost",
    "object_kept": "share of frames in which the object named is there",
    "object_identity": "overlap of its shape with the first frame's, 1 = the same",
    "refined_sharpness_gain": "log10 power above 1/4 cycle per pixel, refined less bilinear",
    "refined_low_change": "log10 power below 1/16 cycle per pixel, refined less bilinear",
    "truth_psnr_db": "all frames against the true clip's, dB",
    "truth_feature_distance": "the same in the autoencoder's features, less is better",
    **REFINEMENT_MEASURES,
}


def measure_video(
    image_HWC: Frames, prompt: str, base_FHWC: Frames, final_FHWC: Frames, clip_encoder: Any
) -> dict[str, float]:
    """All measures that apply without the true clip; `image_HWC` is the image at the base stage's
    size. Without a refinement, `final_FHWC` is the base video itself.

    `direction_right` is missing where the prompt names no direction, the object's measures where
    it names no object of a known colour, and the refinement's where there was none.
    """
    vectors_FD = _unit(clip_encoder.encode_image(clip_encoder.preprocess(final_FHWC)))
    text_D = _unit(clip_encoder.encode_text([prompt]))[0]
    image_D = _unit(clip_encoder.encode_image(clip_encoder.preprocess(image_HWC[None])))[0]
    values = {
        "first_frame_psnr_db": min(metrics.psnr_db(image_HWC, base_FHWC[0]), 99.0),
        "first_frame_ssim": metrics.ssim(image_HWC, base_FHWC[0]),
        "prompt_similarity": float((vectors_FD @ text_D).mean()),
        "image_similarity": float((vectors_FD @ image_D).mean()),
        "temporal_consistency": float((vectors_FD[1:] * vectors_FD[:-1]).sum(axis=1).mean()),
        "warp_error": metrics.warp_error(final_FHWC),
    }
    if final_FHWC is not base_FHWC:
        bands = metrics.spectrum_bands(final_FHWC)
        plain = metrics.spectrum_bands(enlarge(base_FHWC, *final_FHWC.shape[1:3]))
        values["refined_sharpness_gain"] = bands["high"] - plain["high"]
        values["refined_low_change"] = bands["low"] - plain["low"]
    direction = metrics.prompted_direction(prompt)
    if direction is not None:
        values["direction_right"] = float(metrics.direction_is_right(final_FHWC, direction))
    return {**values, **_measure_object(image_HWC, prompt, direction, final_FHWC)}


def _measure_object(
    image_HWC: Frames, prompt: str, direction: str | None, frames_FHWC: Frames
) -> dict[str, float]:
    look = object_track.look_of(image_HWC, prompt)
    if look is None:
        return {}
    found = object_track.track(frames_FHWC, look)
    values = {"object_kept": found.kept_share, "object_identity": object_track.identity(found)}
    if direction is not None:
        right = object_track.moved_as_said(found.travel(), direction)
        values["object_direction_right"] = float(right)
    return values


def enlarge(frames_FHWC: Frames, height_px: int, width_px: int) -> Frames:
    """Bilinear upscaling: what the refinement has to beat."""
    size = (width_px, height_px)
    return np.stack([cv2.resize(f, size, interpolation=cv2.INTER_LINEAR) for f in frames_FHWC])


def summarise(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Per measure: mean, standard error and number of videos that it applies to."""
    summary = {}
    for name in MEASURES:
        values = [row[name] for row in rows if name in row]
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            summary[name] = {
                "mean": statistics.fmean(values),
                "standard_error": spread / math.sqrt(len(values)),
                "videos": float(len(values)),
            }
    return summary


def _unit(vectors: Any) -> np.ndarray:
    values = np.asarray(vectors, dtype=np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
