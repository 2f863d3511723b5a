"""CLIP towers as embeddings: frames and texts in, vectors and cosines out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def preprocess_frames(
    frames_BHWC: np.ndarray | Tensor,
    size_px: int,
    mean: Sequence[float],
    std: Sequence[float],
    resize_mode: str,
) -> Tensor:
    """Resize uint8 RGB frames to a square and normalise them: float32 (B, 3, size, size).

    "squash" ignores the aspect; any other mode fits the shorter side and crops the middle.
    Raises ValueError unless the frames are uint8 (B, H, W, 3).
    """
    frames = torch.as_tensor(frames_BHWC)
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise ValueError(f"expected uint8 (B, H, W, 3), got {frames.dtype} {tuple(frames.shape)}")
    images = frames.permute(0, 3, 1, 2)
    height_px, width_px = images.shape[-2:]
    scale = size_px / min(height_px, width_px)
    target = (round(height_px * scale), round(width_px * scale))
    if resize_mode == "squash":
        target = (size_px, size_px)
    images = F.interpolate(images, size=target, mode="bicubic", antialias=True)
    top, left = (target[0] - size_px) // 2, (target[1] - size_px) // 2
    images = images[..., top : top + size_px, left : left + size_px].float() / 255
    shape = (1, 3, 1, 1)
    return (images - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)


def preprocess_for(model: Any, frames_BHWC: np.ndarray | Tensor) -> Tensor:
    """`preprocess_frames` with the size, tint and resize mode that an open_clip model wants."""
    style = model.visual.preprocess_cfg
    size = model.visual.image_size
    size_px = size[0] if isinstance(size, tuple) else size
    return preprocess_frames(
        frames_BHWC, size_px, style["mean"], style["std"], style["resize_mode"]
    )


@dataclass(frozen=True, eq=False)
class ClipEncoder:
    """An open_clip model with its tokenizer, as embeddings; made by `load_clip`.

    Per-token text features come from `token_layer` layers before the end (1: the last layer),
    after the final norm. SD 2.1 and I2VGen-XL condition on the penultimate layer of ViT-H-14, so
    that model uses 2.
    """

    model: Any
    tokenizer: Any
    device: torch.device
    token_layer: int = 1

    @property
    def embed_dim(self) -> int:
        """Width of `encode_image` and `encode_text`."""
        return int(self._text_tower.text_projection.shape[-1])

    @property
    def text_width(self) -> int:
        """Width of `encode_text_tokens`: what a UNet's cross-attention must take."""
        return int(self._text_tower.positional_embedding.shape[-1])

    @property
    def context_length(self) -> int:
        """Tokens per text, start, end and padding included."""
        return int(self.tokenizer.context_length)

    @property
    def _text_tower(self) -> Any:
        return getattr(self.model, "text", self.model)

    def preprocess(self, frames_BHWC: np.ndarray | Tensor) -> Tensor:
        """uint8 RGB frames of any size to the model's input, float32 (B, 3, S, S)."""
        return preprocess_for(self.model, frames_BHWC).to(self.device)

    @torch.no_grad()
    def encode_image(self, images_BCHW: Tensor) -> Tensor:
        """Image embeddings (B, embed_dim), float32, not normalised."""
        return self.model.encode_image(images_BCHW.to(self.device), normalize=False).float()

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Text embeddings (B, embed_dim), float32, not normalised."""
        return self.model.encode_text(self._tokens(texts), normalize=False).float()

    @torch.no_grad()
    def encode_text_tokens(self, texts: Sequence[str]) -> Tensor:
        """Per-token text features (B, context_length, text_width), float32, padding included."""
        output = self.model.forward_intermediates(
            text=self._tokens(texts),
            text_indices=self.token_layer,
            normalize_intermediates=True,
            intermediates_only=True,
        )
        return output["text_intermediates"][0].float()

    def scores(self, images_BCHW: Tensor, texts: Sequence[str]) -> Tensor:
        """Cosine of every image with every text (B, T), in [-1, 1]."""
        image_BD = F.normalize(self.encode_image(images_BCHW), dim=-1)
        text_TD = F.normalize(self.encode_text(texts), dim=-1)
        return image_BD @ text_TD.T

    def _tokens(self, texts: Sequence[str]) -> Tensor:
        return self.tokenizer(list(texts)).to(self.device)
