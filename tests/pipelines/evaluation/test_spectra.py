"""Spectra against pictures whose frequencies are known."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.evaluation import spectra
from pipelines.evaluation.refinement import bicubic, measure_closeness, measure_spectra
from pipelines.world.scenes import Scene, render_frames


def waves(cycles_per_px: float, cycles_per_frame: float, count: int = 16) -> np.ndarray:
    x, t = np.arange(128)[None, None, :], np.arange(count)[:, None, None]
    wave = np.cos(2 * np.pi * (cycles_per_px * x + cycles_per_frame * t))
    gray = np.broadcast_to(128 + 100 * wave, (count, 64, 128)).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=-1)


@pytest.mark.parametrize(("cycles", "band"), [(0.03, "low"), (0.12, "middle"), (0.4, "high")])
def test_a_wave_lands_in_its_spatial_band(cycles: float, band: str) -> None:
    found = spectra.spatial_bands(waves(cycles, 0))
    assert max(found, key=found.__getitem__) == band


@pytest.mark.parametrize(
    ("cycles", "band"), [(1 / 16, "low"), (4 / 16, "middle"), (7 / 16, "high")]
)
def test_a_flicker_lands_in_its_temporal_band(cycles: float, band: str) -> None:
    found = spectra.temporal_bands(waves(0.05, cycles))
    assert max(found, key=found.__getitem__) == band


def test_few_frames_leave_bands_out_and_a_still_video_has_no_power() -> None:
    assert set(spectra.temporal_bands(waves(0.1, 0.25, count=4))) == {"middle", "high"}
    assert max(spectra.temporal_bands(waves(0.1, 0)).values()) == pytest.approx(-6)


def test_the_true_video_is_off_by_nothing_and_the_enlarged_one_lacks_high_power() -> None:
    scene = Scene("cross", "red", "right", "gradient", "still", 3)
    truth, small = (
        np.stack(list(render_frames(scene, 4, *size, 2))) for size in ((112, 64), (56, 32))
    )
    off = measure_spectra(small, truth, truth)
    assert all(off[f"refined_{band}_off"] == 0 for band in ("spatial_low", "spatial_high"))
    assert off["bicubic_spatial_high_off"] < -0.3
    assert abs(off["bicubic_spatial_low_off"]) < 0.1
    blurred = bicubic(small, 64, 112)
    assert measure_spectra(small, blurred, truth)["refined_spatial_high_off"] == pytest.approx(
        off["bicubic_spatial_high_off"]
    )


def test_closeness_is_of_both_and_the_truth_wins() -> None:
    from model.encoders import load_vae

    scene = Scene("ring", "green", "up", "gradient", "still", 5)
    truth, small = (
        np.stack(list(render_frames(scene, 2, *size, 2))) for size in ((112, 64), (56, 32))
    )
    values = measure_closeness("true", small, truth, truth, load_vae())
    assert values["true_refined_psnr_db"] == 99.0 and values["true_refined_feature_distance"] == 0
    assert values["true_bicubic_psnr_db"] < 50 and values["true_bicubic_feature_distance"] > 0.001
