"""What a training step computes and keeps, counted without doing it.

Operations are counted on shapes alone (PyTorch's meta device), kept bytes with PyTorch's fake
tensors: the network runs through its real code, autocast and checkpointing included, and nothing
is computed or allocated. A GPU's allocator and its convolutions' workspaces come on top.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from model.unet import VideoUNet
from model.unet_config import UNetConfig

BACKWARD_FACTOR = 2  # the backward pass has two products for each of the forward pass


def forward_flop(config: UNetConfig, frames: int, height: int, width: int, tokens: int) -> int:
    """Operations (a multiply-add is two) of one video's forward pass: products and convolutions.

    Height and width of the latents; `tokens` of the text.
    """
    with torch.device("meta"):
        unet = VideoUNet(config)
        given = _arguments(config, 1, frames, height, width, tokens)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        unet(**given)
    return int(counter.get_total_flops())


def training_flop(config: UNetConfig, frames: int, height: int, width: int, tokens: int) -> int:
    """Of one video's forward and backward pass; what checkpointing computes again is not work
    done, so it does not count (as in the usual "model FLOP utilisation")."""
    return (1 + BACKWARD_FACTOR) * forward_flop(config, frames, height, width, tokens)


def training_activation_bytes(
    config: UNetConfig,
    videos: int,
    frames: int,
    height: int,
    width: int,
    tokens: int,
    *,
    precision: Literal["float32", "bfloat16"] = "float32",
    checkpointing: str = "none",
) -> int:
    """What one forward pass leaves for its backward pass; under bfloat16 that includes autocast's
    copies of the weights. Checkpointing adds, for a moment, one layer's own activations."""
    with FakeTensorMode():
        unet = VideoUNet(config).train()
        unet.set_activation_checkpointing(checkpointing)
        given = _arguments(config, videos, frames, height, width, tokens)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return kept_bytes(lambda: unet(**given))


def kept_bytes(forward: Callable[[], Any]) -> int:
    """Bytes that `forward` allocated and that are still alive while its result is: the activations
    for the backward pass, wherever they are kept. Weights are not among them."""
    with _Allocations() as allocations:
        result = forward()
    kept = {ref.cdata: size for ref, size in allocations.sizes.items() if not ref.expired()}
    del result
    return sum(kept.values())


def _arguments(
    config: UNetConfig, videos: int, frames: int, height: int, width: int, tokens: int
) -> dict[str, torch.Tensor]:
    """Inputs of the right shapes, on the device that is the default now."""
    latents = (videos, config.in_channels, frames, height, width)
    given = {
        "sample": torch.zeros(latents),
        "timestep": torch.zeros(videos, dtype=torch.long),
        "encoder_hidden_states": torch.zeros(videos, tokens, config.cross_attention_dim),
    }
    if config.image_conditioning:
        given |= {
            "fps": torch.zeros(videos),
            "image_latents": torch.zeros(latents),
            "image_embeddings": torch.zeros(videos, config.cross_attention_dim),
        }
    return given


class _Allocations(TorchDispatchMode):
    """Remembers, without keeping it alive, every storage that an operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[StorageWeakRef, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None) -> Any:  # type: ignore[no-untyped-def]
        given = {_storage(leaf).cdata for leaf in tree_leaves((args, kwargs)) if _is_tensor(leaf)}
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if _is_tensor(leaf) and _storage(leaf).cdata not in given:
                self.sizes[_storage(leaf)] = leaf.untyped_storage().nbytes()
        return made


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def _storage(tensor: torch.Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())
