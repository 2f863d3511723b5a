"""A trainer's whole state as files of a checkpoint, and back."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from model.unet import VideoUNet
from model.weights import CONFIG_FILE, WEIGHTS_FILE, read_unet_directory
from pipelines.training.checkpoints.tensor_file import in_file_order, write_tensors
from pipelines.training.loop.optimization import (
    AveragedWeights,
    group_settings,
    load_optimizer_tensors,
    optimizer_tensors,
)
from pipelines.training.loop.sharding import whole

TRAINER_FILE = "trainer.safetensors"
RANDOMNESS = (
    "every draw comes from a stream named by seed, purpose, step and clip or worker "
    "(pipelines/training/randomness.py); the states are those after the last step"
)


@dataclass(frozen=True)
class Place:
    """How far training is: `step` steps done, the next is `step_in_phase` of phase `phase`; the
    last was batch `batch` of epoch `epoch` of that phase's feed (all counted from 0).

    `recent_losses` are those that the shown loss is the mean of, oldest first."""

    step: int
    samples_seen: int
    phase: int
    step_in_phase: int
    epoch: int
    batch: int
    recent_losses: tuple[float, ...] = ()


def write_state(
    folder: Path | None,
    unet: VideoUNet,
    averaged: AveragedWeights,
    optimizer: torch.optim.Optimizer,
    place: Place,
    seed: int,
    random_states: Mapping[str, Tensor],
) -> None:
    """unet/, ema/, trainer.safetensors, trainer.json. Equal states give equal bytes, whether they
    are sharded or not.

    Where the network is sharded all workers call this, and only the one with a folder writes; one
    tensor at a time is put together. Raises OSError when writing fails, after the others' part in
    this is done. `random_states`: see `Workers.random_states`.
    """
    trainer = optimizer_tensors(unet, optimizer)
    trainer |= {f"random.{name}": state for name, state in random_states.items()}
    weights = dict(unet.named_parameters())
    files = (weights, averaged.tensors, trainer)
    contents = (whole(tensors[n].detach()) for tensors in files for n in in_file_order(tensors))
    try:
        if folder is not None:
            _write_unet(folder / "unet", unet, weights, contents)
            _write_unet(folder / "ema", unet, averaged.tensors, contents)
            write_tensors(folder / TRAINER_FILE, trainer, contents)
            workers = sum(name.startswith("torch.") for name in random_states)
            text: dict[str, Any] = {
                "place": place.__dict__,
                "optimizer": {"class": "AdamW", "groups": group_settings(optimizer)},
                "random": {"seed": seed, "workers": workers, "rule": RANDOMNESS},
            }
            (folder / "trainer.json").write_text(json.dumps(text, indent=2, sort_keys=True) + "\n")
    finally:
        collections.deque(contents, maxlen=0)  # the other workers wait for this one at each


def _write_unet(
    folder: Path, unet: VideoUNet, tensors: Mapping[str, Tensor], contents: Iterator[Tensor]
) -> None:
    """In diffusers' layout, as `model.weights.write_unet_directory` does."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / WEIGHTS_FILE, tensors, contents, {"format": "pt"})
    (folder / CONFIG_FILE).write_text(json.dumps(unet.config.to_json(), indent=2) + "\n")


def read_place(folder: Path) -> Place:
    place = json.loads((folder / "trainer.json").read_text())["place"]
    return Place(**{**place, "recent_losses": tuple(place.get("recent_losses", ()))})


def read_weights(folder: Path, unet: VideoUNet) -> dict[str, Tensor]:
    """Loads unet/ into the network, before it is sharded; returns the tensors of ema/."""
    _, tensors = read_unet_directory(folder / "unet")
    unet.load_state_dict(tensors)
    return read_unet_directory(folder / "ema")[1]


def read_optimizer(folder: Path, unet: VideoUNet, optimizer: torch.optim.Optimizer) -> None:
    with safe_open(folder / TRAINER_FILE, framework="pt") as file:
        tensors = ((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
        load_optimizer_tensors(unet, optimizer, tensors)
