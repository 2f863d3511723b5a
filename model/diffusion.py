"""The diffusion process: noise schedules, v-prediction, what to train on and with which weight.

Everything is a function of a frozen `DiffusionConfig` and runs on any device. Shapes in names: see
the legend in `model/attention.py`; T is the number of timesteps. "alpha" and "sigma" scale the
clean latent and the noise: x_t = alpha_t x_0 + sigma_t noise, alpha_t^2 + sigma_t^2 = 1 (VGen
writes alpha as the root of its cumulated alphas).
"""

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

SCHEDULES = ("cosine", "shifted_logsnr")


@dataclass(frozen=True)
class DiffusionConfig:
    """Schedule and training choices of one stage; the defaults are the paper's base stage.

    schedule: "cosine" (Nichol and Dhariwal 2021), or "shifted_logsnr", its log-SNR lowered for
        high resolution (Hoogeboom et al. 2023) by `shift_min` at the clean end up to `shift_max`.
    zero_terminal_snr: the last timestep is pure noise (Lin et al. 2023).
    noise_range: T_r; training draws timesteps from 0 to T_r - 1, and refinement starts at T_r - 1.
    offset_noise: strength of the extra noise that is constant over a frame's places.
    min_snr_gamma: clip of the loss weight (Hang et al. 2023); None weighs all timesteps alike.
    """

    schedule: str = "cosine"
    num_timesteps: int = 1000
    noise_range: int = 1000
    zero_terminal_snr: bool = True
    offset_noise: float = 0.1
    min_snr_gamma: float | None = None
    cosine_s: float = 0.008
    shift_min: float = 2.0
    shift_max: float = 4.0
    logsnr_limit: float = 15.0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.schedule!r}; known: {', '.join(SCHEDULES)}")
        if not 1 <= self.noise_range <= self.num_timesteps:
            raise ValueError(f"noise_range must lie in 1..{self.num_timesteps}")
        if self.offset_noise < 0:
            raise ValueError("offset_noise must not be negative")
        if self.min_snr_gamma is not None and self.min_snr_gamma <= 0:
            raise ValueError("min_snr_gamma must be positive, or None for equal weights")


def refinement_config(noise_range: int = 600) -> DiffusionConfig:
    """The refinement stage: shifted schedule, noise only up to timestep `noise_range` - 1."""
    return DiffusionConfig(schedule="shifted_logsnr", noise_range=noise_range)


# ---------------------------------------------------------------- schedules


@functools.lru_cache(maxsize=16)
def signal_scales(config: DiffusionConfig) -> Tensor:
    """alpha_t for every timestep: float64 (T,), on the CPU. Shared: do not write to it."""
    if config.schedule == "cosine":
        alphas_T = _cosine_alphas(config)
        return _end_at_zero(alphas_T) if config.zero_terminal_snr else alphas_T
    sigmas_T = _shifted_logsnrs(config).neg().sigmoid().sqrt()
    if config.zero_terminal_snr:  # stretch the noise up to one, as the released refinement does
        low, high = sigmas_T[0], sigmas_T[-1]
        sigmas_T = low + (sigmas_T - low) * (1 - low) / (high - low)
    return (1 - sigmas_T.square()).clamp(min=0).sqrt()


def log_snr(config: DiffusionConfig) -> Tensor:
    """log(alpha_t^2 / sigma_t^2), float64 (T,); minus infinity where the SNR is zero."""
    squared_T = signal_scales(config).square()
    return torch.log(squared_T) - torch.log1p(-squared_T)


def _cosine_alphas(config: DiffusionConfig) -> Tensor:
    def level(u: float) -> float:
        return math.cos((u + config.cosine_s) / (1 + config.cosine_s) * math.pi / 2) ** 2

    steps = config.num_timesteps
    betas = [min(1 - level((t + 1) / steps) / level(t / steps), 0.999) for t in range(steps)]
    return (1 - torch.tensor(betas, dtype=torch.float64)).cumprod(0).sqrt()


def _end_at_zero(alphas_T: Tensor) -> Tensor:
    """Shift and scale so that the first alpha keeps its value and the last becomes zero."""
    first, last = alphas_T[0], alphas_T[-1]
    return (alphas_T - last) * first / (first - last)


def _shifted_logsnrs(config: DiffusionConfig) -> Tensor:
    """Cosine log-SNR, clean to noisy, minus 2 log of a shift that grows geometrically with t."""
    fraction_T = torch.linspace(0, 1, config.num_timesteps, dtype=torch.float64)
    start = math.atan(math.exp(-config.logsnr_limit / 2))
    end = math.atan(math.exp(config.logsnr_limit / 2))
    cosine_T = -2 * torch.log(torch.tan(start + fraction_T * (end - start)))
    low, high = math.log(config.shift_min), math.log(config.shift_max)
    return cosine_T - 2 * (low + fraction_T * (high - low))


# ---------------------------------------------------------------- the process


def q_sample(config: DiffusionConfig, x0: Tensor, noise: Tensor, timesteps_B: Tensor) -> Tensor:
    """Noisy latents at the given timesteps, one per video; `x0` and `noise` are (B, ...)."""
    alpha, sigma = _scales(config, timesteps_B, x0)
    return alpha * x0 + sigma * noise


def v_target(config: DiffusionConfig, x0: Tensor, noise: Tensor, timesteps_B: Tensor) -> Tensor:
    """What the network learns to say: v = alpha noise - sigma x_0 (Salimans and Ho 2022)."""
    alpha, sigma = _scales(config, timesteps_B, x0)
    return alpha * noise - sigma * x0


def x0_from_v(config: DiffusionConfig, x_t: Tensor, v: Tensor, timesteps_B: Tensor) -> Tensor:
    """The clean latent that `v` stands for; well defined even where the SNR is zero."""
    alpha, sigma = _scales(config, timesteps_B, x_t)
    return alpha * x_t - sigma * v


def noise_from_v(config: DiffusionConfig, x_t: Tensor, v: Tensor, timesteps_B: Tensor) -> Tensor:
    """The noise that `v` stands for."""
    alpha, sigma = _scales(config, timesteps_B, x_t)
    return alpha * v + sigma * x_t


def _scales(config: DiffusionConfig, timesteps_B: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    alpha_B = signal_scales(config)[timesteps_B.cpu()]
    sigma_B = (1 - alpha_B.square()).sqrt()
    shape = (-1,) + (1,) * (like.ndim - 1)
    return alpha_B.to(like).reshape(shape), sigma_B.to(like).reshape(shape)


# ---------------------------------------------------------------- training draws


def draw_noise(
    shape_BCFHW: tuple[int, ...], config: DiffusionConfig, generator: torch.Generator | None = None
) -> Tensor:
    """Unit noise plus offset noise: one extra draw per video, channel and frame, so that the
    network learns to move a frame's mean. Float32 on the CPU, whatever device trains, so that a
    seed means the same everywhere."""
    noise = torch.randn(shape_BCFHW, generator=generator)
    if config.offset_noise:
        offset = torch.randn((*shape_BCFHW[:3], 1, 1), generator=generator)
        noise = noise + config.offset_noise * offset
    return noise


def draw_timesteps(
    batch: int, config: DiffusionConfig, generator: torch.Generator | None = None
) -> Tensor:
    """Uniform in 0..noise_range-1: int64 (B,), on the CPU."""
    return torch.randint(config.noise_range, (batch,), generator=generator)


def loss_weights(config: DiffusionConfig, timesteps_B: Tensor) -> Tensor:
    """Weight of each sample's squared error in v, float32 (B,), on the CPU.

    With min-SNR: min(SNR, gamma) / (SNR + 1), which is min(SNR, gamma) on the error in x_0.
    """
    if config.min_snr_gamma is None:
        return torch.ones(timesteps_B.shape[0])
    squared_B = signal_scales(config)[timesteps_B.cpu()].square()
    # With SNR = a/(1-a): SNR + 1 = 1/(1-a), so the weight is min(a, gamma (1-a)), never 0/0.
    return torch.minimum(squared_B, config.min_snr_gamma * (1 - squared_B)).float()


def denoising_loss(prediction: Tensor, target: Tensor, weights_B: Tensor | None = None) -> Tensor:
    """Weighted mean over videos of the mean squared error, in float32; a scalar."""
    error_B = (prediction.float() - target.float()).square().flatten(1).mean(dim=1)
    return error_B.mean() if weights_B is None else (error_B * weights_B.to(error_B)).mean()
