"""Frozen encoders by name: CLIP towers, the CoCa captioner and the video autoencoder.

"embedded" names the small models in `model/assets/`, which need no network; any other name is
loaded through open_clip or diffusers, from the model hub or its local cache. Everything returned
is in eval mode, works without gradients and gives the same output for the same input.
"""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from model.autoencoder import VideoAutoencoder
from model.captioner import Captioner
from model.clip import ClipEncoder, preprocess_frames

__all__ = [
    "EMBEDDED",
    "Captioner",
    "ClipEncoder",
    "VideoAutoencoder",
    "WeightsUnavailable",
    "asset_digests",
    "load_captioner_model",
    "load_clip",
    "load_vae",
    "preprocess_frames",
]

EMBEDDED = "embedded"
ASSETS = Path(__file__).parent / "assets"
COCA_CONFIG = ASSETS / "embedded_coca.json"
COCA_WEIGHTS = ASSETS / "embedded_coca.safetensors"
COCA_VOCABULARY = ASSETS / "embedded_coca_bpe.txt.gz"
VAE_DIRECTORY = ASSETS / "embedded_vae"
VAE_WEIGHTS = VAE_DIRECTORY / "diffusion_pytorch_model.safetensors"


class WeightsUnavailable(RuntimeError):
    """Named weights could not be loaded; the message is one line and says how to mend it."""


def asset_digests() -> dict[str, str]:
    """sha256 of each embedded weight file by file name, for run parameters and lineage."""
    return {
        str(path.relative_to(ASSETS)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (COCA_WEIGHTS, VAE_WEIGHTS)
    }


def load_clip(name: str = EMBEDDED, device: str | torch.device = "cpu") -> ClipEncoder:
    """CLIP by name: "embedded" or open_clip's "architecture:pretrained", as in
    "ViT-H-14:laion2b_s32b_b79k". Raises WeightsUnavailable.
    """
    model, tokenizer = _open_clip(name, device)
    token_layer = 2 if name.startswith("ViT-H-14:") else 1
    return ClipEncoder(model, tokenizer, torch.device(device), token_layer)


def load_captioner_model(name: str = EMBEDDED, device: str | torch.device = "cpu") -> Captioner:
    """CoCa by name: "embedded" or "coca_ViT-L-14:mscoco_finetuned_laion2B-s13B-b90k".

    Raises WeightsUnavailable, also for a model that cannot caption.
    """
    model, tokenizer = _open_clip(name, device)
    if not hasattr(model, "text_decoder"):
        raise WeightsUnavailable(
            f"captioner {name!r} is no CoCa model: name {EMBEDDED!r} or coca_*"
        )
    return Captioner(model, tokenizer, torch.device(device))


def load_vae(name: str = EMBEDDED, device: str | torch.device = "cpu") -> VideoAutoencoder:
    """Autoencoder by name: "embedded", a local directory, or a diffusers repository with a `vae`
    folder such as "stabilityai/stable-diffusion-2-1". Raises WeightsUnavailable.
    """
    from diffusers import AutoencoderKL

    source, options = Path(name), {}
    if name == EMBEDDED:
        source = VAE_DIRECTORY
    if not (source / "config.json").is_file():
        options = {"subfolder": "vae"}
    try:
        with _no_waiting_for_an_absent_hub():
            vae = AutoencoderKL.from_pretrained(
                str(source) if source.is_dir() else name,
                torch_dtype=torch.float32,
                low_cpu_mem_usage=False,
                **options,
            )
    except Exception as error:
        raise _unavailable("autoencoder", name, error) from error
    return VideoAutoencoder(vae.to(device))


def _open_clip(name: str, device: str | torch.device) -> tuple[Any, Any]:
    """(model in eval mode without gradients, tokenizer)."""
    import open_clip

    architecture, _, pretrained = name.partition(":")
    options: dict[str, Any] = {}
    if name == EMBEDDED:
        open_clip.add_model_config(COCA_CONFIG)
        architecture, pretrained = COCA_CONFIG.stem, str(COCA_WEIGHTS)
        options = {"bpe_path": str(COCA_VOCABULARY)}
    elif not pretrained:
        raise WeightsUnavailable(
            f"model {name!r} is not {EMBEDDED!r} and not of the form architecture:pretrained"
        )
    try:
        with _no_waiting_for_an_absent_hub():
            model = open_clip.create_model(architecture, pretrained=pretrained, device=device)
            tokenizer = open_clip.get_tokenizer(architecture, **options)
    except Exception as error:
        raise _unavailable("open_clip model", name, error) from error
    if name == EMBEDDED:
        model.visual.preprocess_cfg["resize_mode"] = "squash"
    return model.eval().requires_grad_(False), tokenizer


def _unavailable(kind: str, name: str, error: Exception) -> WeightsUnavailable:
    cause = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return WeightsUnavailable(
        f"{kind} {name!r} could not be loaded ({cause}): check the name, connect to the model hub "
        f"or fill its cache beforehand, or use {EMBEDDED!r}"
    )


@contextmanager
def _no_waiting_for_an_absent_hub() -> Iterator[None]:
    """Look in the local cache only when the hub's host cannot be reached.

    The hub's client tries each file six times, three quarters of a minute in all, and warns every
    time. Behind a proxy a direct connection says nothing, so there its own patience decides.
    """
    from huggingface_hub import constants

    was_offline = constants.HF_HUB_OFFLINE
    proxied = any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"))
    if not was_offline and not proxied and not _reachable(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline


def _reachable(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=3):
            return True
    except OSError:
        return False
