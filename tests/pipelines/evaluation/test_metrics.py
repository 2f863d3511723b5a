"""Measures against what is known of the pictures they measure."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.evaluation import metrics
from pipelines.world.scenes import Scene, render_frames


def frames_of(motion: str, seed: int = 3, camera: str = "still") -> np.ndarray:
    scene = Scene("circle", "red", motion, "textured", camera, seed)
    return np.stack(list(render_frames(scene, 8, 224, 126, 8)))


@given(st.integers(1, 60))
@settings(max_examples=20, deadline=None)
def test_psnr_is_that_of_the_known_error(step: int) -> None:
    a = np.full((8, 8, 3), 100, np.uint8)
    assert metrics.psnr_db(a, a + np.uint8(step)) == pytest.approx(20 * np.log10(255 / step))
    assert metrics.psnr_db(a, a) == float("inf")


def test_ssim_is_one_for_equal_and_falls_with_blur() -> None:
    frame = frames_of("left")[0]
    slightly, heavily = (cv2.GaussianBlur(frame, (0, 0), sigma) for sigma in (0.8, 3.0))
    assert metrics.ssim(frame, frame) == pytest.approx(1.0)
    assert 1.0 > metrics.ssim(frame, slightly) > metrics.ssim(frame, heavily)


@pytest.mark.parametrize("direction", ["left", "right", "up", "down"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_direction_of_a_moving_object_is_seen(direction: str, seed: int) -> None:
    frames = frames_of(direction, seed)
    others = set(metrics.DIRECTIONS) - {direction}
    assert metrics.direction_is_right(frames, direction)
    assert not any(metrics.direction_is_right(frames, other) for other in others)


def test_the_prompted_direction_is_read_from_the_prompt() -> None:
    scene = Scene("star", "blue", "up", "noise", "still", 0)
    assert metrics.prompted_direction(scene.caption) == "up"
    still = dataclasses.replace(scene, motion="spin")
    assert metrics.prompted_direction(still.caption) is None


def test_a_prompt_is_turned_once_around_in_four() -> None:
    prompt = "a red ring moving left over a gradient background"
    seen = [prompt]
    for _ in range(4):
        seen.append(metrics.turned_prompt(seen[-1]))
    assert [metrics.prompted_direction(p) for p in seen] == ["left", "up", "right", "down", "left"]
    assert seen[-1] == prompt and metrics.turned_prompt("a dog runs left") == "a dog runs left"


def test_continuous_motion_warps_better_than_shuffled_frames() -> None:
    frames = frames_of("right")
    shuffled = frames[[0, 5, 2, 7, 4, 1, 6, 3]]
    assert metrics.warp_error(frames) < metrics.warp_error(shuffled)


def test_blur_takes_the_high_band_and_leaves_the_low() -> None:
    frames = frames_of("left")
    blurred = np.stack([cv2.GaussianBlur(f, (0, 0), 2.0) for f in frames])
    before, after = metrics.spectrum_bands(frames), metrics.spectrum_bands(blurred)
    assert after["high"] < before["high"] - 0.5
    assert after["low"] == pytest.approx(before["low"], abs=0.2)
