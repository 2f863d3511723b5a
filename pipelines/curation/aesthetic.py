"""The aesthetic score: a small head on CLIP image embeddings, when its weights are given.

LAION's predictors are a linear layer, or several without activations in use, on unit embeddings
of ViT-L-14. Their weights come with no package, so the score is null unless a safetensors file
is named in `clip_score.aesthetic_weights`.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipelines.config import RequestError


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
            raise RequestError(
                f"clip_score.aesthetic_weights: made for embeddings of width {self.embed_dim}, "
                f"clip_score.model gives {embedding_D.shape[-1]}; name the model it was made for"
            )
        values = embedding_D.astype(np.float32)
        for weight_OI, bias_O in self.layers:
            values = weight_OI @ values + bias_O
        return float(values[0])


def load_head(path: str) -> AestheticHead | None:
    """The head in a safetensors file (`NAME.N.weight`, `NAME.N.bias`), or None for no path."""
    if not path:
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(Path(path))
    except (OSError, SafetensorError) as error:
        raise RequestError(f"clip_score.aesthetic_weights {path}: {error}") from error
    names = sorted((n[: -len(".weight")] for n in tensors if n.endswith(".weight")), key=_number)
    layers = tuple((tensors[f"{n}.weight"], tensors.get(f"{n}.bias")) for n in names)
    filled = tuple((w, np.zeros(len(w), np.float32) if b is None else b) for w, b in layers)
    widths_fit = all(a[0].shape[0] == b[0].shape[1] for a, b in itertools.pairwise(filled))
    if not filled or not widths_fit or filled[-1][0].shape[0] != 1:
        raise RequestError(
            f"clip_score.aesthetic_weights {path}: expected linear layers that end in one value"
        )
    return AestheticHead(filled)


def _number(name: str) -> tuple[int, str]:
    found = re.findall(r"\d+", name)
    return (int(found[-1]) if found else 0, name)
