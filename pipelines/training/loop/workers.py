"""The group of training workers, as far as the loop needs it. One worker needs no group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from model.unet import VideoUNet


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

    def parallel(self, unet: VideoUNet, how: str = "ddp", precision: str = "float32") -> nn.Module:
        """Puts the network on the device. What is handed back is to be called in its place: it
        averages gradients over the workers in the backward pass.

        `how`: "ddp" leaves the parameters whole; "fsdp" replaces those of `unet` by this worker's
        shares (`sharding.py`), so that optimizers must be made afterwards.
        """
        if self.count > 1 and how == "fsdp":
            from pipelines.training.loop.sharding import shard_network

            shard_network(unet, self.device, self.count, precision)
            return unet
        unet.to(self.device)
        if self.count == 1:
            return unet
        from torch.nn.parallel import DistributedDataParallel

        # Buffers: there are none. Every layer runs for every length, so no parameter is unused.
        return DistributedDataParallel(unet, broadcast_buffers=False, gradient_as_bucket_view=True)

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise over the workers."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
        return values

    def random_states(self) -> dict[str, Tensor]:
        """Where every worker's generators are, as `<device>.rank<rank>`: bytes on the CPU."""
        states = {"torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return {
            f"{name}.rank{rank}": state
            for name, here in states.items()
            for rank, state in enumerate(self.gather_bytes(here))
        }

    def gather_bytes(self, values: Tensor) -> list[Tensor]:
        """One uint8 tensor of equal length from each worker, in rank order, on the CPU."""
        if self.count == 1:
            return [values.cpu()]
        here = values.to(self.device)
        everyone = [torch.empty_like(here) for _ in range(self.count)]
        torch.distributed.all_gather(everyone, here)
        return [value.cpu() for value in everyone]
