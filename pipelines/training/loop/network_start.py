"""Where a stage's weights come from: nothing, an image model, a video model, or the base stage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from model import assets
from model.unet import UNetConfig, VideoUNet
from model.weights import (
    init_from_image_unet,
    init_refinement_from_base,
    is_image_unet,
    read_tensors,
    read_unet_directory,
)
from pipelines.config import RequestError
from pipelines.training.randomness import stream

EMBEDDED_UNET = Path(assets.__file__).resolve().parent / "unet"


def resolve_init(init: str, model: UNetConfig) -> dict[str, str]:
    """`TrainJob.start` for `--init`. Raises RequestError when the weights are not there."""
    if init in ("", "fresh"):
        return {"from": "fresh"}
    if init == "auto":
        fits = EMBEDDED_UNET.is_dir() and _config_of(EMBEDDED_UNET) == model
        return {"from": "unet", "directory": str(EMBEDDED_UNET)} if fits else {"from": "fresh"}
    if init == "embedded":
        if not EMBEDDED_UNET.is_dir():
            raise RequestError("--init embedded: no UNet is shipped in model/assets; use fresh")
        return {"from": "unet", "directory": str(EMBEDDED_UNET)}
    if (file := Path(init).expanduser().absolute()).is_file():
        return _start_from_file(init, file)
    directory = _unet_directory(init)
    if directory is None:
        raise RequestError(
            f"--init {init}: no UNet there (a folder with config.json, or with ema/ or unet/ "
            "below); give fresh, embedded, a local folder in diffusers' layout, or a file "
            "(.safetensors, .pth)"
        )
    try:
        values, _ = read_unet_directory(directory)
    except (OSError, ValueError) as error:
        raise RequestError(f"--init {init}: {error}") from error
    is_image = str(values.get("_class_name", "")) == "UNet2DConditionModel"
    return {"from": "image_unet" if is_image else "unet", "directory": str(directory)}


def new_network(start: Mapping[str, str], model: UNetConfig, seed: int) -> VideoUNet:
    """The network before its first step: a pure function of the arguments and the weights named.

    Raises RequestError when the weights do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, "initial weights"))
        unet = VideoUNet(model)
    if start["from"] == "fresh":
        return unet
    directory = Path(start["directory"])
    try:
        tensors = read_tensors(directory)
        if start["from"] == "base":
            init_refinement_from_base(unet, tensors)
        elif start["from"] == "image_unet":
            init_from_image_unet(unet, tensors)
        else:
            unet.load_state_dict(tensors)
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise RequestError(f"{directory}: does not fit this network ({reason})") from error
    return unet.float()


def _start_from_file(init: str, file: Path) -> dict[str, str]:
    """A file has no configuration beside it: what network it holds is told by its tensors."""
    try:
        tensors = read_tensors(file)
    except (OSError, ValueError) as error:
        raise RequestError(f"--init {init}: {error}") from error
    if "conv_in.weight" not in tensors:
        raise RequestError(f"--init {init}: holds no UNet in the names of diffusers or of VGen")
    return {"from": "image_unet" if is_image_unet(tensors) else "unet", "directory": str(file)}


def _unet_directory(init: str) -> Path | None:
    folder = Path(init).expanduser().absolute()
    candidates = (folder, folder / "ema", folder / "unet")
    return next((c for c in candidates if (c / "config.json").is_file()), None)


def _config_of(directory: Path) -> Any:
    values, _ = read_unet_directory(directory)
    return UNetConfig.from_json(values)
