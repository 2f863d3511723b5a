from __future__ import annotations

import numpy as np

from pipelines.curation.subject import subject_area, subject_mask
from pipelines.world import scenes


def true_mask(scene: scenes.Scene, frame: np.ndarray, time_s: float) -> np.ndarray:
    height, width = frame.shape[:2]
    empty = scenes._view(
        scenes._background(scene, width, height), scene.camera, time_s, width, height
    )
    return np.abs(frame.astype(int) - empty).max(axis=-1) > 6


def test_it_agrees_with_the_object_s_true_area() -> None:
    rng = np.random.default_rng(11)
    found, true = [], []
    for _ in range(40):
        scene = scenes.random_scene(rng)
        frames = list(scenes.render_frames(scene, 3, 320, 180, 0.8))
        true.append(np.median([true_mask(scene, f, i / 0.8).mean() for i, f in enumerate(frames)]))
        found.append(subject_area(frames))
    wrong = np.abs(np.array(found) - np.array(true))
    assert wrong.mean() < 0.012, wrong
    ranks = [np.argsort(np.argsort(values)) for values in (found, true)]
    assert np.corrcoef(*ranks)[0, 1] > 0.75


def test_a_plain_picture_has_no_subject() -> None:
    ramp = np.repeat(np.linspace(60, 190, 320).astype(np.uint8)[None, :, None], 180, axis=0)
    assert subject_area([np.repeat(ramp, 3, axis=-1)]) == 0.0
    assert subject_area([]) is None


def test_a_larger_subject_takes_more() -> None:
    areas = []
    for half in (10, 30, 60):
        frame = np.full((180, 320, 3), (90, 100, 95), np.uint8)
        frame[90 - half : 90 + half, 160 - half : 160 + half] = (200, 60, 50)
        areas.append(float(subject_mask(frame).mean()))
    assert areas == sorted(areas)
    assert np.allclose(
        areas, [(2 * h) ** 2 / (180 * 320) for h in (10, 30, 60)], rtol=0.1, atol=0.003
    )
