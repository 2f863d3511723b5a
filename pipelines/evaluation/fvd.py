"""Frechet video distance: how far apart two sets of videos are, as a network of videos sees them.

The network is a file the user names: TorchScript, from (B, 3, T, 224, 224) in [-1, 1] to (B, 400)
logits, as the widely used export of I3D (Kinetics-400). Loading TorchScript runs what the file
says, so only a file one trusts may be named. The distance is that of two Gaussians (Heusel et al.
2017; for videos Unterthiner et al. 2018). It needs many videos (hundreds at least): with fewer
than the vectors have entries it is biased upwards, and comparable only between equal numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from model.frames import to_float
from pipelines.config import RequestError
from pipelines.evaluation.metrics import Frames

SIDE_PX = 224


def open_i3d(path: str) -> Any:
    """The network, on the CPU. Raises RequestError when the file is none."""
    if not Path(path).is_file():
        raise RequestError(f"--i3d {path}: no such file")
    try:
        return torch.jit.load(path, map_location="cpu").eval()
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:160]
        raise RequestError(f"--i3d {path}: not a TorchScript file ({reason})") from error


@torch.no_grad()
def video_vectors(network: Any, videos: Sequence[Frames]) -> NDArray[np.float64]:
    """(N, D): what the network says of each video of (F, H, W, 3) uint8.

    Raises RequestError when it does not take them, or gives something else than vectors.
    """
    vectors = []
    for frames_FHWC in videos:
        frames_FCHW = to_float(frames_FHWC)
        frames_FCHW = F.interpolate(frames_FCHW, (SIDE_PX, SIDE_PX), mode="bilinear")
        try:
            vector = network(frames_FCHW.transpose(0, 1)[None])
        except (RuntimeError, torch.jit.Error) as error:
            reason = str(error).strip().splitlines()[-1][:160]
            raise RequestError(
                f"--i3d: the network fails on {len(frames_FHWC)} frames of {SIDE_PX}x{SIDE_PX} "
                f"({reason}); I3D itself wants about ten frames or more"
            ) from error
        if not isinstance(vector, torch.Tensor) or vector.ndim != 2 or len(vector) != 1:
            raise RequestError("--i3d: the network does not give one vector for a video")
        vectors.append(vector[0].double().numpy())
    return np.stack(vectors)


def frechet_distance(a_ND: NDArray[np.float64], b_ND: NDArray[np.float64]) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) of the two sets' means and covariances.

    The trace of the root is taken through the eigenvalues of A^(1/2) B A^(1/2), which is symmetric:
    no complex parts come up, as they do with a general matrix root. Raises ValueError for fewer
    than two vectors.
    """
    if min(len(a_ND), len(b_ND)) < 2 or a_ND.shape[1] != b_ND.shape[1]:
        raise ValueError("two or more vectors of equal length are needed on each side")
    a_DD, b_DD = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a_ND, b_ND))
    values, vectors = np.linalg.eigh(a_DD)
    root_DD = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root_DD @ b_DD @ root_DD), 0, None)).sum()
    apart = np.square(a_ND.mean(axis=0) - b_ND.mean(axis=0)).sum()
    return float(max(0.0, apart + np.trace(a_DD) + np.trace(b_DD) - 2 * cross))
