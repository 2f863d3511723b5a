"""FSDP2: each worker keeps its share of every weight, gradient, moment and average.

Every tensor is cut along its first axis, one part for each worker. A block of the UNet is put
together just before it runs, forward or backward, and dropped after. The unit is the block and not
the layer, so that putting together happens outside of what is compiled and of what activation
checkpointing runs again (both go layer by layer).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from model.blocks import VideoBlock
from model.unet import VideoUNet


def shard_network(unet: VideoUNet, device: torch.device, workers: int, precision: str) -> None:
    """Cuts the parameters, in place; they keep their names and their float32.

    With `precision` "bfloat16" blocks are sent, and computed with, in bfloat16, which autocast
    would round their weights to anyway; gradients add up in float32. Needs a process group.
    """
    mesh = torch.distributed.init_device_mesh(device.type, (workers,))
    of_blocks = MixedPrecisionPolicy()
    if precision == "bfloat16":
        of_blocks = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
    for block in [module for module in unet.modules() if isinstance(module, VideoBlock)]:
        block.register_forward_pre_hook(_open_lists)
        fully_shard(block, mesh=mesh, mp_policy=of_blocks)
        block.register_forward_pre_hook(_close_lists, prepend=True)
    # Outside of its passes the network holds shares only: its averages can then be swapped in.
    fully_shard(unet, mesh=mesh, reshard_after_forward=True)


def is_sharded(network: nn.Module) -> bool:
    return isinstance(next(network.parameters()), DTensor)


def local(tensor: Tensor) -> Tensor:
    """What this worker holds of a tensor, sharing its memory: a share, or all of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """The whole of a tensor. Of a sharded one it is put together by all workers, who must all
    call this for the same tensors in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_of(value: Tensor, like: Tensor) -> Tensor:
    """A copy of a whole tensor on the device of `like`, and cut as `like` is. Nothing is sent:
    every worker must have the same `value`."""
    value = value.to(like.device)
    if isinstance(like, DTensor):
        value = distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)
    return value.clone()


class _Closed:
    """A list that FSDP does not look into."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items


# FSDP hands a block copies of the lists among its arguments. The blocks on the way up take their
# skips off the end of one list that they share: they must get that list, not a copy.


def _close_lists(block: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_Closed(a) if isinstance(a, list) else a for a in arguments)


def _open_lists(block: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a.items if isinstance(a, _Closed) else a for a in arguments)
