"""The Frechet distance against Gaussians whose distance is known, and a tiny scripted network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pipelines.config import RequestError
from pipelines.evaluation.fvd import frechet_distance, open_i3d, video_vectors


def exact_sample(mean_D: np.ndarray, covariance_DD: np.ndarray, count: int = 64) -> np.ndarray:
    """Vectors whose sample mean and covariance are these to rounding."""
    drawn = np.random.default_rng(0).standard_normal((count, len(mean_D)))
    drawn -= drawn.mean(axis=0)
    white = drawn @ np.linalg.inv(np.linalg.cholesky(np.cov(drawn, rowvar=False))).T
    return white @ np.linalg.cholesky(covariance_DD).T + mean_D


@given(
    st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    st.lists(st.floats(0.1, 4), min_size=6, max_size=6),
)
@settings(max_examples=30, deadline=None)
def test_it_is_that_of_two_gaussians_with_independent_entries(
    shift: list[float], deviations: list[float]
) -> None:
    a, b = np.array(deviations[:3]), np.array(deviations[3:])
    first = exact_sample(np.zeros(3), np.diag(a**2))
    second = exact_sample(np.array(shift), np.diag(b**2))
    expected = np.square(shift).sum() + np.square(a - b).sum()
    assert frechet_distance(first, second) == pytest.approx(expected, abs=1e-6)


def test_a_rotation_of_both_changes_nothing_and_equal_sets_are_at_zero() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((40, 5)) * [1, 2, 3, 1, 1], rng.standard_normal((30, 5)) + 1
    turn, _ = np.linalg.qr(rng.standard_normal((5, 5)))
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="two or more"):
        frechet_distance(a[:1], b)


class MeanColours(nn.Module):
    """Stands in for I3D: the mean of each colour, and how much time changes it."""

    def forward(self, videos: Tensor) -> Tensor:
        if videos.shape[2] < 3:
            raise RuntimeError("too short")
        assert videos.shape[1] == 3 and videos.shape[3] == 224 and videos.shape[4] == 224
        return torch.cat([videos.mean(dim=(2, 3, 4)), videos.mean(dim=(3, 4)).std(dim=2)], dim=1)


def test_a_scripted_network_reads_videos_in_its_own_range(tmp_path: Path) -> None:
    path = tmp_path / "network.pt"
    torch.jit.script(MeanColours()).save(str(path))
    network = open_i3d(str(path))
    frames = np.full((4, 30, 50, 3), 255, np.uint8)
    frames[..., 1] = 0
    (vector,) = video_vectors(network, [frames])
    assert vector == pytest.approx([1, -1, 1, 0, 0, 0], abs=1e-6)
    with pytest.raises(RequestError, match="fails on 2 frames"):
        video_vectors(network, [frames[:2]])


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no such file"):
        open_i3d(str(tmp_path / "none.pt"))
    (tmp_path / "text.pt").write_text("no network")
    with pytest.raises(RequestError, match="not a TorchScript file"):
        open_i3d(str(tmp_path / "text.pt"))
