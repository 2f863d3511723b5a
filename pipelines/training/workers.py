"""The group of training workers, as far as the loop needs it. One worker needs no group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Workers:
    """This worker's place among all, and the few things they do together.

    `report` is called by all workers at the same points, with figures for whoever started them.
    """

    rank: int
    count: int
    device: torch.device
    report: Callable[[dict[str, Any]], None]

    @classmethod
    def of_ray(cls) -> Workers:
        import ray.train
        import ray.train.torch

        context = ray.train.get_context()
        device = ray.train.torch.get_device()
        return cls(context.get_world_rank(), context.get_world_size(), device, ray.train.report)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def parallel(self, network: nn.Module) -> nn.Module:
        """Averages gradients over the workers in the backward pass."""
        if self.count == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        # Buffers: there are none. Every layer runs for every length, so no parameter is unused.
        return DistributedDataParallel(network, broadcast_buffers=False)

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise over the workers."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
        return values

    def gather_bytes(self, values: Tensor) -> list[Tensor]:
        """One uint8 tensor of equal length from each worker, in rank order, on the CPU."""
        if self.count == 1:
            return [values.cpu()]
        here = values.to(self.device)
        everyone = [torch.empty_like(here) for _ in range(self.count)]
        torch.distributed.all_gather(everyone, here)
        return [value.cpu() for value in everyone]
