"""Muon: momentum, then the nearest orthogonal matrix as the step.

Jordan et al. 2024, "Muon: an optimizer for hidden layers". At equal CPU time it brought the
embedded autoencoder about 1 dB further than AdamW. Unlike torch.optim.Muon it also steps
convolution kernels, and treats the three matrices that attention packs into one apart.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """Steps matrices, and kernels (out, in, kh, kw) read as (out, in*kh*kw) matrices."""

    def __init__(
        self,
        weights: Iterable[Tensor],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Apply one step to every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["average"] = torch.zeros_like(weight)
                average = state["average"]
                average.lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(average, group["momentum"])
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(_direction(ahead), alpha=-group["lr"])


def _direction(gradient: Tensor) -> Tensor:
    """The orthogonal step for one weight, as long for tall matrices as for wide ones."""
    matrix = gradient.reshape(gradient.shape[0], -1)
    rows, columns = matrix.shape
    packed = 3 if gradient.ndim == 2 and rows == 3 * columns else 1
    parts = []
    for part in matrix.chunk(packed):
        stretch = max(1.0, part.shape[0] / part.shape[1]) ** 0.5
        parts.append(stretch * orthogonal(part))
    return torch.cat(parts).reshape(gradient.shape)


def orthogonal(matrix_MN: Tensor, steps: int = 5) -> Tensor:
    """Roughly U V^T of the matrix's SVD, by the quintic Newton-Schulz iteration of the paper."""
    wide = matrix_MN if matrix_MN.shape[0] <= matrix_MN.shape[1] else matrix_MN.T
    x = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
    return x if wide is matrix_MN else x.T
