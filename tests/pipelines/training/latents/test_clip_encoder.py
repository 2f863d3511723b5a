"""The embedded networks on real clips, in this process."""

import dataclasses

import numpy as np
import pytest
import torch

from pipelines.config import RequestError
from pipelines.media import write_video
from pipelines.training.config import EncodeConfig, EncodersConfig
from pipelines.training.latents.clip_encoder import (
    ClipEncoder,
    ClipUnreadable,
    frames_to_network,
    to_float16,
    weights_digest,
)
from pipelines.training.latents.posterior import encode_moments
from pipelines.training.latents.recipe import Recipe, promised_frames, recipe_from, recipe_of
from tests.pipelines.training.small_dataset import picture

RECIPE = recipe_of(EncodeConfig())


@pytest.fixture(scope="module")
def encoder():
    torch.set_num_threads(1)
    return ClipEncoder(EncodersConfig(), RECIPE)


def film(folder, frames: int, fps: int = 8) -> bytes:
    path = folder / "film.mp4"
    write_video(path, (picture(0, frame) for frame in range(frames)), fps=fps)
    return path.read_bytes()


def row(seconds: float, kind: str = "video") -> dict:
    return {"clip_id": "c" * 32, "kind": kind, "start_s": 2.0, "end_s": 2.0 + seconds}


def test_a_clip_with_fewer_frames_than_its_row_promises_is_refused_by_id(encoder, tmp_path):
    data = film(tmp_path, 16)  # 2 s
    assert len(encoder.decode(row(2.0), data)) == 32
    assert len(encoder.decode(row(2.06), data)) == 32  # the last moment may round
    with pytest.raises(ClipUnreadable, match=r"clip c{32} decodes to 32 frames.*promises 48"):
        encoder.decode(row(3.0), data)


def test_a_clip_that_cannot_be_decoded_is_named(encoder):
    with pytest.raises(ClipUnreadable, match=r"clip c{32} cannot be decoded"):
        encoder.decode(row(1.0), b"not a film at all" * 50)


@pytest.mark.parametrize(
    ("seconds", "kind", "frames"),
    [(3.0, "video", 48), (3.01, "video", 49), (0.01, "video", 1), (9.0, "video", 64),
     (0.0, "image", 1)],
)  # fmt: skip
def test_promised_frames(seconds, kind, frames):
    assert promised_frames(row(seconds, kind), RECIPE) == frames


def test_a_row_without_times_promises_nothing():
    assert promised_frames({"kind": "video", "start_s": None, "end_s": None}, RECIPE) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, 70_000.0, -70_000.0])
def test_values_that_float16_cannot_hold_are_refused_by_name(value):
    values = np.zeros((2, 3), np.float32)
    assert to_float16(values, "x").dtype == np.float16
    values[1, 2] = value
    with pytest.raises(ClipUnreadable, match="clip 7: latents do not fit float16"):
        to_float16(values, "clip 7: latents")


def test_a_network_that_overflows_is_refused_by_clip_id(tmp_path):
    broken = ClipEncoder(EncodersConfig(), RECIPE)
    broken.vae.scaling_factor *= 1e6
    frames_FHWC = broken.decode(row(1.0), film(tmp_path, 8))
    with pytest.raises(ClipUnreadable, match=r"clip c{32}: latents do not fit"):
        broken.features(row(1.0), frames_FHWC)


def test_moments_are_the_mean_and_the_spread_of_what_the_autoencoder_draws(encoder, tmp_path):
    frames = frames_to_network(encoder.decode(row(0.25), film(tmp_path, 2))[:2])
    mean, std = encode_moments(encoder.vae, frames)
    assert torch.equal(mean, encoder.vae.encode(frames))
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([encoder.vae.encode(frames, True, generator) for _ in range(200)])
    # 200 draws: the spread is known to 1 / sqrt(2 * 200) = 5 % each, its mean over all far better.
    assert float((draws.std(dim=0) / std).mean()) == pytest.approx(1.0, abs=0.01)
    assert float(std.min()) > 0


def test_moments_of_a_size_that_the_factor_does_not_divide(encoder):
    frames = torch.rand(3, 3, 30, 45) * 2 - 1
    mean, std = encode_moments(encoder.vae, frames)
    assert torch.equal(mean, encoder.vae.encode(frames))
    assert std.shape == mean.shape


def test_the_latent_form_says_what_is_kept(encoder, tmp_path):
    frames_FHWC = encoder.decode(row(0.5), film(tmp_path, 4))
    plain = encoder.features(row(0.5), frames_FHWC)
    assert plain.latents_std_FCHW is None
    both = ClipEncoder(EncodersConfig(), dataclasses.replace(RECIPE, latent="moments"))
    features = both.features(row(0.5), frames_FHWC)
    np.testing.assert_array_equal(features.latents_FCHW, plain.latents_FCHW)
    assert features.latents_std_FCHW.shape == plain.latents_FCHW.shape
    assert features.latents_std_FCHW.dtype == np.float16


def test_a_texts_features_do_not_depend_on_the_recipe():
    other = Recipe("refine", 320, 180, 16, 64, "moments")
    assert other.of_text() == RECIPE.of_text() != Recipe(device="cuda").of_text()


def test_a_recipe_of_another_version_of_the_code_is_none():
    assert recipe_from(dataclasses.asdict(RECIPE)) == RECIPE
    assert recipe_from({}) is None
    assert recipe_from({**dataclasses.asdict(RECIPE), "unheard_of": 1}) is None


def test_unknown_encoders_are_refused_in_one_line():
    with pytest.raises(RequestError, match="encoders: "):
        ClipEncoder(EncodersConfig(clip="ViT-B-32:no-such-weights"), RECIPE)


def test_a_weights_digest_sees_one_changed_value():
    module = torch.nn.Linear(3, 2)
    before = weights_digest(module)
    assert before == weights_digest(module)
    with torch.no_grad():
        module.weight[0, 0] += 1e-6
    assert before != weights_digest(module)
