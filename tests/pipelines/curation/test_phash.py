from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipelines.curation.duplicates import DuplicatesConfig, drop_duplicates
from pipelines.curation.phash import FRAMES, clip_hash, unpacked
from pipelines.world.scenes import Scene, render_frames
from tests.pipelines.curation.clips_of import a_clip
from tests.pipelines.pictures import scenery


def fingerprint(frames: list[np.ndarray]) -> str:
    """Of RGB frames, spread over a clip as the watch stage does."""
    lumas = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]
    hashed = [lumas[int((i + 0.5) * len(lumas) / FRAMES)] for i in range(FRAMES)]
    return clip_hash(hashed, [frames[int(share * len(frames))] for share in (0.15, 0.5, 0.85)])


def take(seed: int, seconds: float = 2.0) -> list[np.ndarray]:
    scene = Scene("star", "orange", "right", "noise", "still", seed)
    return list(render_frames(scene, int(12 * seconds), 320, 180, 12.0))


def coded(frame: np.ndarray, quality: int = 30) -> np.ndarray:
    _, data = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].copy()


def are_copies(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    clips = [a_clip(i, phash=fingerprint(f)) for i, f in enumerate((one, other))]
    return any(c.verdict == "dropped" for c in drop_duplicates(clips, DuplicatesConfig()))


COPIES = {
    "coded badly": lambda frames: [coded(f) for f in frames],
    "smaller": lambda frames: [cv2.resize(f, (160, 90)) for f in frames],
    "brighter": lambda frames: [np.clip(f * 1.15 + 8, 0, 255).astype(np.uint8) for f in frames],
    "slower rate": lambda frames: frames[::2],
    "trimmed": lambda frames: frames[2:-1],
    "enlarged": lambda frames: [cv2.resize(f[6:-6, 10:-10], (320, 180)) for f in frames],
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_recognised(how: str) -> None:
    frames = take(1)
    assert are_copies(frames, COPIES[how](frames))


def test_another_scene_of_the_same_kind_is_no_copy() -> None:
    assert not any(are_copies(take(1), take(seed)) for seed in range(2, 12))


def test_a_later_take_of_the_same_scene_is_no_copy() -> None:
    scene = Scene("circle", "red", "bounce", "textured", "still", 5)
    frames = list(render_frames(scene, 60, 320, 180, 12.0))
    assert not are_copies(frames[:25], frames[33:58])


def test_the_same_picture_in_another_tint_is_no_copy() -> None:
    frames = take(3)
    tint = np.array([18, -6, -12])
    tinted = [np.clip(f + tint, 0, 255).astype(np.uint8) for f in frames]
    assert not are_copies(frames, tinted)


def test_a_fingerprint_is_text_and_a_still_does_not_move() -> None:
    still = scenery(1, 320, 180)
    text = clip_hash([cv2.cvtColor(still, cv2.COLOR_RGB2GRAY)], [still])
    assert set(text) <= set("0123456789abcdef")
    found = unpacked(text)
    assert not found.moving.any() and found.standing.any()
    moving = unpacked(fingerprint(take(1)))
    assert moving.moving.any() and moving.standing.shape == found.standing.shape
    black = unpacked(clip_hash([np.zeros((9, 9), np.uint8)]))
    assert not black.standing.any() and black.colour.tolist() == [128, 128]
