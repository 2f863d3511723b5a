"""Pure measures on frames. Pictures are (F, H, W, 3) uint8 RGB unless a name says otherwise."""

from __future__ import annotations

import itertools
import re

import cv2
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]

# Constants of the structural similarity index (Wang et al. 2004) for 8-bit pictures.
SSIM_C1, SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
FLOW_WIDTH_PX = 160
MOVING_SHARE = 0.1  # the fastest tenth of the pixels stands for the moving object


def psnr_db(a_HWC: Frames, b_HWC: Frames) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pictures. Raises on unequal shapes."""
    if a_HWC.shape != b_HWC.shape:
        raise ValueError(f"shapes differ: {a_HWC.shape} and {b_HWC.shape}")
    error = float(np.mean((a_HWC.astype(np.float64) - b_HWC.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))


def ssim(a_HWC: Frames, b_HWC: Frames) -> float:
    """Mean structural similarity of the luma, 11x11 Gaussian window of sigma 1.5; 1 = equal."""
    a = cv2.cvtColor(a_HWC, cv2.COLOR_RGB2GRAY).astype(np.float64)
    b = cv2.cvtColor(b_HWC, cv2.COLOR_RGB2GRAY).astype(np.float64)

    def mean(x: NDArray) -> NDArray:
        return np.asarray(cv2.GaussianBlur(x, (11, 11), 1.5))

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    index = ((2 * mean_a * mean_b + SSIM_C1) * (2 * covariance + SSIM_C2)) / (
        (mean_a**2 + mean_b**2 + SSIM_C1) * (variance_a + variance_b + SSIM_C2)
    )
    return float(index.mean())


def flows_FHW2(frames_FHWC: Frames) -> NDArray[np.float32]:
    """Dense optical flow between consecutive frames at 160 px width, in frame widths per frame."""
    height_px = max(16, round(FLOW_WIDTH_PX * frames_FHWC.shape[1] / frames_FHWC.shape[2]))
    small = [
        cv2.cvtColor(
            cv2.resize(f, (FLOW_WIDTH_PX, height_px), interpolation=cv2.INTER_AREA),
            cv2.COLOR_RGB2GRAY,
        )
        for f in frames_FHWC
    ]
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    start_HW2 = np.zeros((*small[0].shape, 2), np.float32)
    pairs = itertools.pairwise(small)
    flows = [flow.calc(a, b, start_HW2.copy()) for a, b in pairs]
    return (np.stack(flows) / FLOW_WIDTH_PX).astype(np.float32)


def dominant_motion(frames_FHWC: Frames) -> tuple[float, float]:
    """Mean (dx, dy) of the fastest tenth of the pixels less the background's median motion,
    in frame widths over the whole video; right and down positive."""
    dx = dy = 0.0
    for flow_HW2 in flows_FHW2(frames_FHWC):
        relative = flow_HW2.reshape(-1, 2) - np.median(flow_HW2.reshape(-1, 2), axis=0)
        speed = np.linalg.norm(relative, axis=1)
        fastest = relative[speed >= np.quantile(speed, 1 - MOVING_SHARE)]
        dx += float(fastest[:, 0].mean())
        dy += float(fastest[:, 1].mean())
    return dx, dy


def prompted_direction(prompt: str) -> str | None:
    """`left`, `right`, `up` or `down` where the prompt says "moving ..."; else None."""
    words = prompt.lower().split()
    for here, following in itertools.pairwise(words):
        if here == "moving" and following.strip(".,") in DIRECTIONS:
            return following.strip(".,")
    return None


def turned_prompt(prompt: str) -> str:
    """The prompt with its direction turned clockwise by 90 degrees, else as it is.

    Where a world's first frames give the motion away (what moves right begins on the left), only a
    prompt that says something else shows whether it is read.
    """
    direction = prompted_direction(prompt)
    if direction is None:
        return prompt
    order = ("up", "right", "down", "left")
    turned = order[(order.index(direction) + 1) % len(order)]
    return re.sub(rf"\bmoving {direction}\b", f"moving {turned}", prompt, flags=re.IGNORECASE)


def direction_is_right(frames_FHWC: Frames, direction: str) -> bool:
    """True when the dominant motion points within 45 degrees of the prompted direction."""
    dx, dy = dominant_motion(frames_FHWC)
    wanted = DIRECTIONS[direction]
    along = dx * wanted[0] + dy * wanted[1]
    across = abs(dx * wanted[1]) + abs(dy * wanted[0])
    return along > 0 and along >= across


def warp_error(frames_FHWC: Frames) -> float:
    """Mean absolute difference (0-1) between each frame and the next one warped back by the flow:
    how far the video is from continuous motion."""
    errors = []
    height_px, width_px = frames_FHWC.shape[1:3]
    rows, columns = np.mgrid[0:height_px, 0:width_px].astype(np.float32)
    for index, flow_HW2 in enumerate(flows_FHW2(frames_FHWC)):
        full = cv2.resize(flow_HW2, (width_px, height_px)) * width_px
        warped = cv2.remap(
            frames_FHWC[index + 1],
            columns + full[..., 0],
            rows + full[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        difference = np.abs(warped.astype(np.float32) - frames_FHWC[index].astype(np.float32))
        errors.append(float(difference.mean()) / 255)
    return float(np.mean(errors))


def spectrum_bands(frames_FHWC: Frames) -> dict[str, float]:
    """Mean log power of the luma in three radial bands (cycles per pixel): low < 1/16,
    middle < 1/4, high above."""
    gray = frames_FHWC.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    # The window keeps the jump between opposite edges out of the high band.
    window = np.outer(np.hanning(gray.shape[1]), np.hanning(gray.shape[2]))
    power = np.abs(np.fft.fft2((gray - gray.mean(axis=(1, 2), keepdims=True)) * window)) ** 2
    fy, fx = np.fft.fftfreq(gray.shape[1])[:, None], np.fft.fftfreq(gray.shape[2])[None, :]
    radius = np.hypot(fy, fx)
    bands = {"low": radius < 1 / 16, "middle": (radius >= 1 / 16) & (radius < 1 / 4)}
    bands["high"] = radius >= 1 / 4
    return {name: float(np.log10(power[:, mask] + 1).mean()) for name, mask in bands.items()}
