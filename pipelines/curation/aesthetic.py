"""The aesthetic score: a small head on CLIP image embeddings, when its weights are given.

LAION's predictors are a linear layer, or several without activations in use, on unit embeddings
of ViT-L-14. Their weights come with no package, so the score is null unless a safetensors file
is named in `clip_score.aesthetic_weights`.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.config import RequestError

PICKLES = frozenset((".pt", ".pth", ".bin", ".ckpt", ".pkl"))


@dataclass(frozen=True)
class AestheticHead:
    """Linear layers applied one after another; the last has one output."""

    layers: tuple[tuple[np.ndarray, np.ndarray], ...]

    @property
    def embed_dim(self) -> int:
        return int(self.layers[0][0].shape[1])

    def score(self, embedding_D: np.ndarray) -> float:
        """Raises RequestError when the embedding has another width than the head."""
        if embedding_D.shape != (self.embed_dim,):
            raise RequestError(_misfit(self.embed_dim, embedding_D.shape[-1]))
        values = embedding_D.astype(np.float32)
        for weight_OI, bias_O in self.layers:
            values = weight_OI @ values + bias_O
        return float(values[0])


def load_head(path: str) -> AestheticHead | None:
    """The head in a safetensors file, or None for no path. Raises RequestError.

    Its layers are `NAME.N.weight` and `NAME.N.bias` in the order of N, or one `weight` and `bias`;
    dropout between them has no tensors, so LAION's heads need no more than another file format.
    """
    if not path:
        return None
    where = f"clip_score.aesthetic_weights {path}"
    if Path(path).suffix in PICKLES:
        raise RequestError(
            f"{where}: a pickle can run any code; load it once with torch.load(weights_only=True) "
            "and write it with safetensors.torch.save_file"
        )
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(Path(path))
    except (OSError, SafetensorError) as error:
        raise RequestError(f"{where}: {' '.join(str(error).split())}") from error
    layers = _layers_of(tensors)
    shapes_fit = all(w.ndim == 2 and b.shape == w.shape[:1] for w, b in layers) and all(
        a[0].shape[0] == b[0].shape[1] for a, b in itertools.pairwise(layers)
    )
    if not layers or not shapes_fit or layers[-1][0].shape[0] != 1:
        raise RequestError(f"{where}: expected linear layers that end in one value")
    if not all(np.isfinite(values).all() for layer in layers for values in layer):
        raise RequestError(f"{where}: holds values that are not finite")
    return AestheticHead(layers)


def _layers_of(tensors: Mapping[str, np.ndarray]) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    found = (n.removesuffix("weight") for n in tensors if n.rpartition(".")[2] == "weight")
    layers = []
    for name in sorted(found, key=_number):
        weight = np.asarray(tensors[f"{name}weight"], np.float32)
        bias = tensors.get(f"{name}bias")
        zeros = np.zeros(weight.shape[:1], np.float32)
        layers.append((weight, zeros if bias is None else np.asarray(bias, np.float32)))
    return tuple(layers)


def check_head(path: str, model: str) -> None:
    """Raises RequestError, before any work, for a head that cannot judge the model's embeddings."""
    head = load_head(path)
    if head is None:
        return
    width = _width_of(model)
    if width is not None and width != head.embed_dim:
        raise RequestError(_misfit(head.embed_dim, width))


def _width_of(model: str) -> int | None:
    """Of a CLIP model's embeddings, by its name; None for one that open_clip does not know."""
    import open_clip

    from model.encoders import COCA_CONFIG, EMBEDDED

    if model == EMBEDDED:
        return int(json.loads(COCA_CONFIG.read_text())["embed_dim"])
    found = open_clip.get_model_config(model.partition(":")[0])
    return int(found["embed_dim"]) if found else None


def _misfit(embed_dim: int, width: int) -> str:
    return (
        f"clip_score.aesthetic_weights: made for embeddings of width {embed_dim}, "
        f"clip_score.model gives {width}; name the model it was made for"
    )


def _number(name: str) -> tuple[int, str]:
    found = re.findall(r"\d+", name)
    return (int(found[-1]) if found else 0, name)
