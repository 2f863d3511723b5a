"""The cascade: an image and a text in, a small video, then the same video large and clean.

base stage: image -> latents at the base size, under everything the image and the prompt say;
refinement: that video decoded, enlarged, encoded again, noised part of the way (SDEdit) and
denoised under the short text alone. Shapes in names: see the legend in `model/attention.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from model.conditioning import Conditions, unconditional
from model.diffusion import DiffusionConfig
from model.presets import CascadePreset
from model.samplers import (
    StageSampling,
    StepCallback,
    noise_to,
    sample,
    seeded_generators,
    start_from_noise,
)
from model.unet import VideoUNet

ProgressCallback = Callable[[str, int, int], None]


class FrameCodec(Protocol):
    """What the cascade needs of an autoencoder; `encoders.load_vae` gives one."""

    downsample_factor: int
    latent_channels: int

    def encode(self, frames_BCHW: Tensor) -> Tensor:
        """Frames in [-1, 1] to scaled latents; sizes round up."""
        ...

    def decode(
        self, latents_BCHW: Tensor, height_px: int | None = None, width_px: int | None = None
    ) -> Tensor:
        """Scaled latents to frames in [-1, 1], cut to the given size."""
        ...


class ImageTextEncoder(Protocol):
    """What the cascade needs of a CLIP; `encoders.load_clip` gives one."""

    def preprocess(self, frames_BHWC: Any) -> Tensor: ...

    def encode_image(self, images_BCHW: Tensor) -> Tensor: ...

    def encode_text_tokens(self, texts: Sequence[str]) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Cascade:
    """Both stages with their frozen encoders; `refine_unet=None` generates with the base alone.

    Sizes are in pixels. The networks may sit on different devices; the encoders say for themselves.
    """

    base_unet: VideoUNet
    refine_unet: VideoUNet | None
    vae: FrameCodec
    clip: ImageTextEncoder
    base_diffusion: DiffusionConfig
    refine_diffusion: DiffusionConfig
    base_width_px: int
    base_height_px: int
    refine_width_px: int
    refine_height_px: int
    base_sampler: str = "ddim"
    refine_sampler: str = "dpmpp_2m_sde"
    refine_guidance_rescale: float = 0.2

    @classmethod
    def from_preset(
        cls,
        preset: CascadePreset,
        base_unet: VideoUNet,
        refine_unet: VideoUNet | None,
        vae: FrameCodec,
        clip: ImageTextEncoder,
    ) -> "Cascade":
        """Sizes, schedules and samplers as the preset says."""
        return cls(
            base_unet, refine_unet, vae, clip, preset.base_diffusion, preset.refine_diffusion,
            preset.base_width_px, preset.base_height_px,
            preset.refine_width_px, preset.refine_height_px,
            preset.base_sampling.sampler, preset.refine_sampling.sampler,
            preset.refine_sampling.guidance_rescale,
        )  # fmt: skip

    def generate(
        self,
        image_HWC: np.ndarray,
        prompt: str,
        short_prompt: str | None = None,
        seed: int = 0,
        num_frames: int = 16,
        fps: float = 8,
        base_steps: int = 50,
        refine_steps: int = 30,
        guidance_base: float = 9.0,
        guidance_refine: float = 7.5,
        progress: ProgressCallback | None = None,
        show_bar: bool = True,
    ) -> tuple[np.ndarray, np.ndarray]:
        """One video from one image.

        image_HWC: uint8 RGB of any size; its middle is used, at the base stage's aspect.
        short_prompt: the refinement's text; the prompt itself when None.
        progress: called with (stage, steps done, steps of the stage) after each step.

        Returns (base frames, final frames), uint8 (F, H, W, 3); twice the same without a
        refinement network. The same arguments give the same frames. Raises ValueError for an
        image that is not uint8 RGB, or for impossible numbers.
        """
        _check_request(image_HWC, num_frames, fps)
        with _Progress(
            base_steps, refine_steps * (self.refine_unet is not None), progress, show_bar
        ) as bar:
            sampling = StageSampling(self.base_sampler, base_steps, guidance_base)
            base = self.base_frames(
                image_HWC, prompt, seed, num_frames, fps, sampling, bar.of("base")
            )
            if self.refine_unet is None:
                return _to_uint8(base), _to_uint8(base)
            sampling = StageSampling(
                self.refine_sampler, refine_steps, guidance_refine, self.refine_guidance_rescale
            )
            text = prompt if short_prompt is None else short_prompt
            final = self.refined_frames(base, text, seed, sampling, bar.of("refine"))
        return _to_uint8(base), _to_uint8(final)

    @torch.no_grad()
    def base_frames(
        self,
        image_HWC: np.ndarray,
        prompt: str,
        seed: int,
        num_frames: int,
        fps: float,
        sampling: StageSampling,
        on_step: StepCallback | None = None,
    ) -> Tensor:
        """The base stage: frames (F, 3, H, W) in [-1, 1] at the base size."""
        unet = self.base_unet
        image_1HWC = fit_image(image_HWC, self.base_width_px, self.base_height_px)[None]
        image_BCHW = torch.from_numpy(image_1HWC).permute(0, 3, 1, 2).float() / 127.5 - 1
        detail_BCHW = self.vae.encode(image_BCHW)
        conditions = self._place(
            unet,
            Conditions(
                self.clip.encode_text_tokens([prompt]),
                torch.tensor([float(fps)]),
                self.clip.encode_image(self.clip.preprocess(image_1HWC)),
                detail_BCHW,
            ),
        )
        generators = seeded_generators([seed])
        _, channels, height, width = detail_BCHW.shape
        noise = start_from_noise(
            (channels, num_frames, height, width), generators, unet.conv_in.weight.device
        )
        with _evaluating(unet):
            latents = sample(
                unet, self.base_diffusion, sampling, noise, self.base_diffusion.num_timesteps - 1,
                conditions, self._without(conditions), generators, on_step,
            )  # fmt: skip
        return self._decode(latents, self.base_height_px, self.base_width_px)

    @torch.no_grad()
    def refined_frames(
        self,
        frames_FCHW: Tensor,
        short_prompt: str,
        seed: int,
        sampling: StageSampling,
        on_step: StepCallback | None = None,
    ) -> Tensor:
        """The refinement of frames in [-1, 1] of any size: (F, 3, H, W) at the refinement size.

        Raises ValueError when the cascade has no refinement network.
        """
        if self.refine_unet is None:
            raise ValueError("this cascade has no refinement network")
        unet = self.refine_unet
        size = (self.refine_height_px, self.refine_width_px)
        enlarged_FCHW = F.interpolate(frames_FCHW, size=size, mode="bilinear", align_corners=False)
        latents = self.vae.encode(enlarged_FCHW).transpose(0, 1)[None]  # 1 C F H W
        latents = latents.to(unet.conv_in.weight.device)
        conditions = self._place(unet, Conditions(self.clip.encode_text_tokens([short_prompt])))
        generators = seeded_generators([seed])
        first = self.refine_diffusion.noise_range - 1
        noisy = noise_to(latents, self.refine_diffusion, first, generators)
        with _evaluating(unet):
            latents = sample(
                unet, self.refine_diffusion, sampling, noisy, first,
                conditions, self._without(conditions), generators, on_step,
            )  # fmt: skip
        return self._decode(latents, *size)

    def _decode(self, latents_BCFHW: Tensor, height_px: int, width_px: int) -> Tensor:
        frames = self.vae.decode(latents_BCFHW[0].transpose(0, 1), height_px, width_px)
        return frames.clamp(-1, 1)

    def _place(self, unet: VideoUNet, conditions: Conditions) -> Conditions:
        return conditions.to(unet.conv_in.weight.device, unet.conv_in.weight.dtype)

    def _without(self, conditions: Conditions) -> Conditions:
        return unconditional(conditions, self.clip.encode_text_tokens([""])[0])


def fit_image(image_HWC: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """The middle of an image at the wanted aspect, resized: uint8 (height_px, width_px, 3).

    Cuts no more than the aspect asks for; antialiased, so that fine texture does not alias.
    """
    height, width = image_HWC.shape[:2]
    scale = min(width / width_px, height / height_px)
    crop_w, crop_h = round(width_px * scale), round(height_px * scale)
    left, top = (width - crop_w) // 2, (height - crop_h) // 2
    crop = np.ascontiguousarray(image_HWC[top : top + crop_h, left : left + crop_w])
    pixels = torch.from_numpy(crop).permute(2, 0, 1)[None].float()
    resized = F.interpolate(
        pixels, size=(height_px, width_px), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()


def _check_request(image_HWC: np.ndarray, num_frames: int, fps: float) -> None:
    if image_HWC.dtype != np.uint8 or image_HWC.ndim != 3 or image_HWC.shape[2] != 3:
        raise ValueError("the image must be uint8 RGB, height x width x 3")
    if image_HWC.size == 0:
        raise ValueError("the image is empty")
    if num_frames < 1:
        raise ValueError("num_frames must be at least 1")
    if fps <= 0:
        raise ValueError("fps must be positive")


@contextmanager
def _evaluating(unet: VideoUNet) -> Iterator[None]:
    """Without dropout, which would draw from the global random state; then as it was before."""
    training = unet.training
    unet.eval()
    try:
        yield
    finally:
        unet.train(training)


def _to_uint8(frames_FCHW: Tensor) -> np.ndarray:
    """[-1, 1] (F, 3, H, W) to uint8 (F, H, W, 3)."""
    scaled = (frames_FCHW.float() + 1) * 127.5
    return scaled.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


class _Progress:
    """One bar over the steps of both stages, and the caller's callback."""

    def __init__(
        self, base_steps: int, refine_steps: int, callback: ProgressCallback | None, show: bool
    ):
        self._callback = callback
        self._bar = tqdm(total=base_steps + refine_steps, unit="step", disable=not show)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def of(self, stage: str) -> StepCallback:
        def on_step(done: int, total: int) -> None:
            self._bar.set_description(stage, refresh=False)
            self._bar.update()
            if self._callback is not None:
                self._callback(stage, done, total)

        return on_step
