"""The optimizer, the averaged weights, and both as named tensors without pickle."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from model.unet import VideoUNet, spatial_parameter_names
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
        foreach=True,
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
    """The optimizer's state as `optimizer.<quantity>.<parameter>`."""
    tensors = {}
    for name, parameter in unet.named_parameters():
        for quantity, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{OPTIMIZER_PREFIX}{quantity}.{name}"] = torch.as_tensor(value)
    return tensors


def load_optimizer_tensors(
    unet: nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """The inverse of `optimizer_tensors`. Raises KeyError on a parameter that is not there."""
    parameters = dict(unet.named_parameters())
    for full, value in tensors.items():
        if not full.startswith(OPTIMIZER_PREFIX):
            continue
        quantity, _, name = full.removeprefix(OPTIMIZER_PREFIX).partition(".")
        parameter = parameters[name]
        # AdamW keeps its step counts on the CPU and its moments beside the parameters.
        place = value if quantity == "step" else value.to(parameter.device)
        optimizer.state[parameter][quantity] = place.clone()


def group_settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """What is set per group, for trainer.json (parameters are named in the tensors)."""
    return [
        {key: value for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]


class AveragedWeights:
    """Exponential moving average of all parameters, float32."""

    def __init__(self, unet: nn.Module, tensors: dict[str, Tensor] | None = None) -> None:
        source = tensors or unet.state_dict()
        device = next(unet.parameters()).device
        self.tensors = {n: v.detach().float().to(device).clone() for n, v in source.items()}

    @torch.no_grad()
    def update(self, unet: nn.Module, learning: RegimenConfig, step: int) -> None:
        decay = ema_decay_at(learning, step)
        current = unet.state_dict()
        averages = list(self.tensors.values())
        values = [current[name].float() for name in self.tensors]
        torch._foreach_lerp_(averages, values, 1 - decay)

    def swap(self, unet: nn.Module) -> None:
        """Exchanges the network's weights and the averages; twice gives back what was."""
        with torch.no_grad():
            for name, value in unet.state_dict().items():
                kept = value.clone()
                value.copy_(self.tensors[name])
                self.tensors[name].copy_(kept)
