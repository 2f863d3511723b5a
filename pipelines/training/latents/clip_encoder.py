"""The frozen networks of one process: a clip's frames or a text to the features that are kept."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines.config import RequestError
from pipelines.job import JobEnded
from pipelines.training.config import EncodersConfig
from pipelines.training.latents.recipe import Recipe, promised_frames

FRAMES_PER_CALL = 32  # fixed, so that equal clips give equal bytes whatever is beside them
# The last moment of a clip may round to one stored frame more or less; a cut file loses more.
ROUNDING_FRAMES = 1


class ClipUnreadable(JobEnded):
    """A clip that curation wrote cannot be decoded, or not whole, or gives features that are no
    numbers: the dataset or the networks are broken. Nothing is skipped or replaced."""


@dataclass(frozen=True)
class ClipFeatures:
    """What is kept of one clip's F frames; float16, all finite."""

    latents_FCHW: np.ndarray
    latents_std_FCHW: np.ndarray | None = None
    image_embeddings_FD: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.latents_FCHW)


class ClipEncoder:
    """The frozen networks of one process, ready for one recipe."""

    def __init__(self, encoders: EncodersConfig, recipe: Recipe) -> None:
        """Raises RequestError when named weights cannot be had."""
        from model.encoders import WeightsUnavailable, load_clip, load_vae

        self.recipe = recipe
        try:
            self.vae = load_vae(encoders.vae, recipe.device)
            self.clip = load_clip(encoders.clip, recipe.device)
        except WeightsUnavailable as error:
            raise RequestError(f"encoders: {error}") from error
        self.names = {
            "vae": {"name": encoders.vae, "digest": weights_digest(self.vae.vae)},
            "clip": {"name": encoders.clip, "digest": weights_digest(self.clip.model)},
        }

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a frame's latents."""
        factor = self.vae.downsample_factor
        rows, columns = -(-self.recipe.height_px // factor), -(-self.recipe.width_px // factor)
        return self.vae.latent_channels, rows, columns

    @property
    def text_shape(self) -> tuple[int, int]:
        """(L, D) of a text's features."""
        return self.clip.context_length, self.clip.text_width

    def decode(self, clip: Mapping[str, Any], data: bytes) -> np.ndarray:
        """frames_FHWC uint8 RGB of a clip (a row of clips.parquet) at the recipe's rate and size.

        Raises ClipUnreadable, also for a clip with fewer frames than its row promises: half a file
        decodes without any error. Uses no network, so any thread may call it.
        """
        from pipelines.media import MediaError, read_clip_frames

        recipe, name = self.recipe, f"clip {clip['clip_id']}"
        try:
            frames_FHWC = read_clip_frames(
                data,
                fps=recipe.fps,
                width_px=recipe.width_px,
                height_px=recipe.height_px,
                max_frames=1 if clip["kind"] == "image" else recipe.max_frames,
            )
        except MediaError as error:
            raise ClipUnreadable(f"{name} cannot be decoded: {error}") from error
        if len(frames_FHWC) == 0:
            raise ClipUnreadable(f"{name} has no frames")
        promised = promised_frames(clip, recipe)
        if promised is not None and len(frames_FHWC) < promised - ROUNDING_FRAMES:
            raise ClipUnreadable(
                f"{name} decodes to {len(frames_FHWC)} frames at {recipe.fps}/s; clips.parquet "
                f"promises {promised}: the file is cut short; curate its source again"
            )
        return frames_FHWC

    def features(self, clip: Mapping[str, Any], frames_FHWC: np.ndarray) -> ClipFeatures:
        """Raises ClipUnreadable when a feature is not finite or too large for float16."""
        means, stds, embeddings = [], [], []
        for first in range(0, len(frames_FHWC), FRAMES_PER_CALL):
            chunk_FHWC = frames_FHWC[first : first + FRAMES_PER_CALL]
            mean, std = self._latents(frames_to_network(chunk_FHWC))
            means.append(mean)
            stds.append(std)
            if self.recipe.with_image_embeddings:
                images = self.clip.preprocess(chunk_FHWC)
                embeddings.append(self.clip.encode_image(images).cpu().numpy())
        name = f"clip {clip['clip_id']}"
        return ClipFeatures(
            to_float16(np.concatenate(means), f"{name}: latents"),
            to_float16(np.concatenate(stds), f"{name}: standard deviations of the latents")
            if self.recipe.latent == "moments"
            else None,
            to_float16(np.concatenate(embeddings), f"{name}: image embeddings")
            if embeddings
            else None,
        )

    def text(self, text: str) -> np.ndarray:
        """(L, D) float16, one text a call: the result must not depend on its neighbours."""
        features_LD = self.clip.encode_text_tokens([text])[0].cpu().numpy()
        return to_float16(features_LD, f"text {text!r}")

    def _latents(self, frames_FCHW: Any) -> tuple[np.ndarray, Any]:
        if self.recipe.latent == "mean":
            return self.vae.encode(frames_FCHW).cpu().numpy(), None
        from pipelines.training.latents.posterior import encode_moments

        mean, std = encode_moments(self.vae, frames_FCHW)
        return mean.cpu().numpy(), std.cpu().numpy()


def to_float16(values: np.ndarray, what: str) -> np.ndarray:
    """Raises ClipUnreadable naming `what` when a value is not finite, or overflows float16."""
    with np.errstate(over="ignore"):
        halves = values.astype(np.float16)
    if not np.isfinite(halves).all():
        worst = np.abs(values).max()  # NaN where there is one
        raise ClipUnreadable(f"{what} do not fit float16 (largest value {worst}); nothing is kept")
    return halves


def frames_to_network(frames_FHWC: np.ndarray) -> Any:
    """uint8 RGB (F, H, W, 3) -> float32 tensor (F, 3, H, W) in [-1, 1]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(frames_FHWC)).permute(0, 3, 1, 2) / 127.5 - 1.0


def weights_digest(module: Any) -> str:
    """32 hex digits over the names, types, shapes and values of all tensors of a network."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name}\0{plain.dtype}\0{tuple(plain.shape)}\0".encode())
        digest.update(plain.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
