"""The optimizer, the averaged weights, and both as named tensors without pickle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from model.unet import VideoUNet, spatial_parameter_names
from pipelines.training.loop.sharding import local, share_of
from pipelines.training.stages import RegimenConfig, ema_decay_at, learning_rate_factor

OPTIMIZER_PREFIX = "optimizer."


def make_optimizer(unet: VideoUNet, learning: RegimenConfig) -> torch.optim.AdamW:
    """Two groups: "spatial" parameters (shared with an image model) learn at γ times the rate.

    As a group's own rate, not as a scale on gradients: AdamW divides the latter away again
    (facts: VGen's γ has no effect).
    """
    spatial = set(spatial_parameter_names(unet))
    named = dict(unet.named_parameters())
    groups = [
        {"name": "temporal", "params": [p for n, p in named.items() if n not in spatial]},
        {"name": "spatial", "params": [p for n, p in named.items() if n in spatial]},
    ]
    return torch.optim.AdamW(
        groups,
        lr=learning.learning_rate,
        betas=(learning.beta1, learning.beta2),
        weight_decay=learning.weight_decay,
        # One kernel instead of one for each product and sum: a third of the time on a CPU too
        # (tests/benchmarks/train_step_speed.py).
        fused=True,
    )


def set_learning_rates(
    optimizer: torch.optim.Optimizer, learning: RegimenConfig, step_in_phase: int
) -> dict[str, float]:
    """Sets and returns the rates of this step by group."""
    rate = learning.learning_rate * learning_rate_factor(learning, step_in_phase)
    rates = {"temporal": rate, "spatial": rate * learning.spatial_rate}
    for group in optimizer.param_groups:
        group["lr"] = rates[group["name"]]
    return rates


def optimizer_tensors(unet: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as `optimizer.<quantity>.<parameter>`, sharded as it is."""
    tensors = {}
    for name, parameter in unet.named_parameters():
        for quantity, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{OPTIMIZER_PREFIX}{quantity}.{name}"] = torch.as_tensor(value)
    return tensors


def load_optimizer_tensors(
    unet: nn.Module, optimizer: torch.optim.Optimizer, tensors: Iterable[tuple[str, Tensor]]
) -> None:
    """The inverse of `optimizer_tensors`, from names and whole tensors, however the network is
    sharded. Raises KeyError on a parameter that is not there."""
    parameters = dict(unet.named_parameters())
    for full, value in tensors:
        if not full.startswith(OPTIMIZER_PREFIX):
            continue
        quantity, _, name = full.removeprefix(OPTIMIZER_PREFIX).partition(".")
        parameter = parameters[name]
        if quantity == "step":  # one number for all workers, where the fused kernel reads it
            state = value.to(parameter.device, copy=True)
        else:
            state = share_of(value, parameter)
        optimizer.state[parameter][quantity] = state


# --- gradients -----------------------------------------------------------------------------


def held_gradients(unet: nn.Module) -> list[Tensor]:
    """What this worker holds of the gradients: all, or its share of each."""
    return [local(p.grad) for p in unet.parameters() if p.grad is not None]


def clip_gradients(gradients: list[Tensor], norm: Tensor, largest: float) -> None:
    """Scales gradients of this norm (over all workers, where they are shares) down to `largest`,
    in place. As `torch.nn.utils.clip_grad_norm_` does it, bit for bit."""
    scale = (largest / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, scale)


def group_settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """What is set per group, for trainer.json (parameters are named in the tensors)."""
    return [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]


class AveragedWeights:
    """Exponential moving average of all parameters, float32, each sharded as its parameter is.

    `tensors` are whole averages to start from; without them they start as the weights.
    """

    def __init__(self, unet: nn.Module, tensors: Mapping[str, Tensor] | None = None) -> None:
        parameters = dict(unet.named_parameters())
        if tensors is None:
            self.tensors = {n: p.detach().float().clone() for n, p in parameters.items()}
        else:
            self.tensors = {n: share_of(v.float(), parameters[n]) for n, v in tensors.items()}

    @torch.no_grad()
    def update(self, unet: nn.Module, learning: RegimenConfig, step: int) -> None:
        decay = ema_decay_at(learning, step)
        pairs = self._pairs(unet)
        averages, values = [a for a, _ in pairs], [value.float() for _, value in pairs]
        torch._foreach_lerp_(averages, values, 1 - decay)

    @torch.no_grad()
    def swap(self, unet: nn.Module) -> None:
        """Exchanges the network's weights and the averages; twice gives back what was."""
        for average, value in self._pairs(unet):
            kept = value.clone()
            value.copy_(average)
            average.copy_(kept)

    def _pairs(self, unet: nn.Module) -> list[tuple[Tensor, Tensor]]:
        """(average, weight) of every parameter, as far as this worker holds it."""
        return [(local(self.tensors[n]), local(p)) for n, p in unet.named_parameters()]
