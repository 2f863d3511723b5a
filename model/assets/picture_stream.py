"""Endless batches of film frames with what they show, for the embedded CoCa."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from model.assets.pictures import film_frame
from model.clip import preprocess_frames
from pipelines.world.scenes import BACKGROUNDS, COLOURS, MOTION_PHRASES, SHAPES, Scene

_REMEMBERED = 3000


@dataclass(frozen=True)
class Picture:
    """A model input (3, S, S), the object's mask (S, S) in [0, 1], and the scene."""

    image_CHW: Tensor
    mask_HW: Tensor
    scene: Scene


class PictureStream:
    """Rendering costs a third of a step, so part of a batch is seen before, mirrored anew."""

    def __init__(self, rng: np.random.Generator, preprocess_style: dict, size_px: int) -> None:
        self._rng = rng
        self._style = preprocess_style
        self._size_px = size_px
        self._seen: deque[Picture] = deque(maxlen=_REMEMBERED)

    def batch(self, size: int, fresh: int) -> list[Picture]:
        """`size` pictures, at least `fresh` of them new."""
        new = [self._draw() for _ in range(max(fresh, size - len(self._seen)))]
        old = [
            self._mirrored(self._seen[int(self._rng.integers(len(self._seen)))])
            for _ in range(size - len(new))
        ]
        self._seen.extend(new)
        return new + old

    def _draw(self) -> Picture:
        scene, frame, mask = film_frame(self._rng)
        size_px = self._size_px
        images = preprocess_frames(
            frame[None], size_px, self._style["mean"], self._style["std"], "squash"
        )
        small = cv2.resize(mask, (size_px, size_px), interpolation=cv2.INTER_AREA)
        return Picture(images[0], torch.from_numpy(small).float() / 255, scene)

    def _mirrored(self, picture: Picture) -> Picture:
        """No still fact has a side: every shape stays itself in a mirror."""
        sides = [side for side in (-1, -2) if self._rng.random() < 0.5]
        return Picture(picture.image_CHW.flip(sides), picture.mask_HW.flip(sides), picture.scene)


def facts_of(scene: Scene) -> tuple[int, int, int, int]:
    """(shape, colour, background, motion) as indices."""
    return (
        SHAPES.index(scene.shape),
        COLOURS.index(scene.colour),
        BACKGROUNDS.index(scene.background),
        list(MOTION_PHRASES).index(scene.motion),
    )
