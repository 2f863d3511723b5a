from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from model import encoders
from model.clip import preprocess_frames
from model.encoders import (
    COCA_CONFIG,
    COCA_WEIGHTS,
    WeightsUnavailable,
    asset_digests,
    load_captioner_model,
    load_clip,
    load_vae,
)
from pipelines.world.scenes import random_scene, render_frames

TEXTS = ["a red circle over a noise background", "a photo of a blue cross", "zebra!"]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small a model is no faster with more, and far slower where other work shares the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def frames_BHWC() -> np.ndarray:
    rng = np.random.default_rng(31)
    return np.stack([next(render_frames(random_scene(rng), 1, 160, 90, 8)) for _ in range(5)])


@pytest.fixture(scope="module")
def clip() -> encoders.ClipEncoder:
    return load_clip()


@pytest.fixture(scope="module")
def captioner() -> encoders.Captioner:
    return load_captioner_model()


@pytest.fixture(scope="module")
def autoencoder() -> encoders.VideoAutoencoder:
    return load_vae()


def test_clip_shapes_and_types(clip: encoders.ClipEncoder, frames_BHWC: np.ndarray) -> None:
    images_BCHW = clip.preprocess(frames_BHWC)
    assert images_BCHW.shape == (5, 3, 64, 64)
    assert clip.encode_image(images_BCHW).shape == (5, clip.embed_dim) == (5, 128)
    assert clip.encode_text(TEXTS).shape == (3, clip.embed_dim)
    tokens_BLD = clip.encode_text_tokens(TEXTS)
    assert tokens_BLD.shape == (3, clip.context_length, clip.text_width) == (3, 32, 128)
    for features in (clip.encode_image(images_BCHW), clip.encode_text(TEXTS), tokens_BLD):
        assert features.dtype == torch.float32 and not features.requires_grad
        assert torch.isfinite(features).all()


def test_clip_scores_are_cosines(clip: encoders.ClipEncoder, frames_BHWC: np.ndarray) -> None:
    images_BCHW = clip.preprocess(frames_BHWC)
    scores_BT = clip.scores(images_BCHW, TEXTS)
    for row, image_D in zip(scores_BT, clip.encode_image(images_BCHW), strict=True):
        for score, text_D in zip(row, clip.encode_text(TEXTS), strict=True):
            assert score.item() == pytest.approx(
                F.cosine_similarity(image_D, text_D, 0).item(), abs=1e-5
            )


def test_text_features_follow_the_final_norm(clip: encoders.ClipEncoder) -> None:
    _, raw_BLD = clip.model.text(clip.tokenizer(TEXTS))
    torch.testing.assert_close(clip.encode_text_tokens(TEXTS), clip.model.text.ln_final(raw_BLD))


def test_a_text_does_not_depend_on_its_neighbours(clip: encoders.ClipEncoder) -> None:
    alone = clip.encode_text(TEXTS[:1])
    torch.testing.assert_close(alone, clip.encode_text(TEXTS)[:1], atol=1e-5, rtol=1e-4)


def test_an_overlong_text_is_cut_to_the_context(clip: encoders.ClipEncoder) -> None:
    assert clip.encode_text_tokens(["red circle " * 60]).shape[1] == clip.context_length


def test_loading_twice_gives_the_same_numbers(
    clip: encoders.ClipEncoder, frames_BHWC: np.ndarray
) -> None:
    images_BCHW = clip.preprocess(frames_BHWC)
    again = load_clip()
    assert torch.equal(again.encode_image(images_BCHW), clip.encode_image(images_BCHW))
    assert not any(p.requires_grad for p in again.model.parameters()) and not again.model.training


def test_squash_keeps_the_sides_and_the_shortest_side_mode_crops_them() -> None:
    frames_BHWC = np.zeros((1, 60, 120, 3), np.uint8)
    frames_BHWC[:, :, :20] = 255  # a white band at the left, outside the middle square
    squashed = preprocess_frames(frames_BHWC, 32, (0.0,) * 3, (1.0,) * 3, "squash")
    cropped = preprocess_frames(frames_BHWC, 32, (0.0,) * 3, (1.0,) * 3, "shortest")
    assert squashed.shape == cropped.shape == (1, 3, 32, 32)
    assert squashed[..., :3].min() == 1 and cropped.max() == 0


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)]
)
def test_preprocess_refuses_other_layouts(frames: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        preprocess_frames(frames, 32, (0.0,) * 3, (1.0,) * 3, "squash")


def test_greedy_decoding_agrees_with_teacher_forcing(
    captioner: encoders.Captioner, frames_BHWC: np.ndarray
) -> None:
    """Every word we chose is the one that open_clip's own forward finds likeliest there."""
    images_BCHW = captioner.preprocess(frames_BHWC)
    tokens_BL = captioner.decode_tokens(images_BCHW, max_tokens=20)
    with torch.no_grad():
        output = captioner.model(images_BCHW, tokens_BL)
    likeliest_BL = output["logits"].argmax(-1)
    chosen_BL = output["labels"]
    written_BL = (tokens_BL[:, :-1] != captioner.tokenizer.eot_token_id) & (tokens_BL[:, :-1] != 0)
    assert written_BL.sum() > 5 * len(frames_BHWC)
    assert torch.equal(likeliest_BL[written_BL], chosen_BL[written_BL])


def test_more_beams_find_captions_at_least_as_likely(
    captioner: encoders.Captioner, frames_BHWC: np.ndarray
) -> None:
    """A wide beam's caption is, per token, at least as likely as the greedy one."""
    images_BCHW = captioner.preprocess(frames_BHWC)

    def mean_log_probability(tokens_BL: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            output = captioner.model(images_BCHW, tokens_BL)
        labels = output["labels"]
        steps = output["logits"].log_softmax(-1).gather(2, labels[..., None])[..., 0]
        ended = (tokens_BL[:, :-1] == captioner.tokenizer.eot_token_id) | (tokens_BL[:, :-1] == 0)
        return steps.masked_fill(ended, 0).sum(1) / (~ended).sum(1)

    greedy = mean_log_probability(captioner.decode_tokens(images_BCHW, 20, beams=1))
    wide = mean_log_probability(captioner.decode_tokens(images_BCHW, 20, beams=4))
    assert (wide >= greedy - 1e-4).all()


def test_captions_are_plain_words_however_they_are_batched(
    captioner: encoders.Captioner, frames_BHWC: np.ndarray
) -> None:
    captions = captioner.generate_captions(frames_BHWC)
    assert captions == captioner.generate_captions(frames_BHWC, batch_size=2)
    assert all(c and "<" not in c and c == c.strip() for c in captions)
    assert [len(c.split()) for c in captioner.generate_captions(frames_BHWC, max_tokens=3)] == [
        3
    ] * 5
    assert captioner.generate_captions(frames_BHWC[:0]) == []


def test_captioner_refuses_zero_tokens(
    captioner: encoders.Captioner, frames_BHWC: np.ndarray
) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        captioner.generate_captions(frames_BHWC, max_tokens=0)


@settings(max_examples=12, deadline=None)
@given(height_px=st.integers(17, 70), width_px=st.integers(17, 70))
def test_any_size_round_trips_to_itself(
    autoencoder: encoders.VideoAutoencoder, height_px: int, width_px: int
) -> None:
    frames_BCHW = torch.rand(1, 3, height_px, width_px) * 2 - 1
    latents_BCHW = autoencoder.encode(frames_BCHW)
    assert latents_BCHW.shape == (1, 4, -(-height_px // 4), -(-width_px // 4))
    rebuilt = autoencoder.decode(latents_BCHW, height_px, width_px)
    assert rebuilt.shape == frames_BCHW.shape
    assert rebuilt.min() >= -1 and rebuilt.max() <= 1


def test_the_demo_sizes_give_the_latents_the_models_expect(
    autoencoder: encoders.VideoAutoencoder,
) -> None:
    assert (autoencoder.downsample_factor, autoencoder.latent_channels) == (4, 4)
    assert autoencoder.encode(torch.zeros(1, 3, 64, 112)).shape == (1, 4, 16, 28)
    assert autoencoder.encode(torch.zeros(1, 3, 180, 320)).shape == (1, 4, 45, 80)


def test_chunks_do_not_change_the_result(
    autoencoder: encoders.VideoAutoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames_BCHW = torch.rand(5, 3, 32, 48) * 2 - 1
    whole = autoencoder.encode(frames_BCHW)
    decoded = autoencoder.decode(whole)
    monkeypatch.setattr("model.autoencoder._CHUNK_PIXELS", 2 * 32 * 48)
    torch.testing.assert_close(autoencoder.encode(frames_BCHW), whole, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(autoencoder.decode(whole), decoded, atol=1e-4, rtol=1e-4)


def test_sampling_follows_the_generator(autoencoder: encoders.VideoAutoencoder) -> None:
    frames_BCHW = torch.rand(2, 3, 32, 32) * 2 - 1
    draws = [
        autoencoder.encode(frames_BCHW, sample=True, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], autoencoder.encode(frames_BCHW))


def test_a_local_directory_loads_like_the_embedded_one(
    autoencoder: encoders.VideoAutoencoder, tmp_path: Path
) -> None:
    autoencoder.vae.save_pretrained(tmp_path / "pipeline" / "vae")
    frames_BCHW = torch.rand(1, 3, 32, 32) * 2 - 1
    for folder in (tmp_path / "pipeline", tmp_path / "pipeline" / "vae"):
        again = load_vae(str(folder))
        assert torch.equal(again.encode(frames_BCHW), autoencoder.encode(frames_BCHW))


def test_the_embedded_coca_is_an_ordinary_open_clip_model(clip: encoders.ClipEncoder) -> None:
    import open_clip

    open_clip.add_model_config(COCA_CONFIG)
    model = open_clip.create_model(COCA_CONFIG.stem, pretrained=str(COCA_WEIGHTS)).eval()
    mine = dict(clip.model.state_dict())
    assert all(torch.equal(value, mine[name]) for name, value in model.state_dict().items())
    assert (
        json.loads(COCA_CONFIG.read_text())["text_cfg"]["vocab_size"] == clip.tokenizer.vocab_size
    )


@pytest.mark.parametrize(
    ("load", "name"),
    [
        (load_clip, "nothing-of-the-kind"),
        (load_clip, "no-such-architecture:x"),
        (load_clip, "ViT-B-32:no-such-weights"),
        (load_captioner_model, "coca_ViT-B-32:no-such-weights"),
        (load_vae, "/no/such/directory"),
    ],
)
def test_missing_weights_are_one_clear_line(load, name: str) -> None:
    with pytest.raises(WeightsUnavailable) as caught:
        load(name)
    message = str(caught.value)
    assert name in message and "embedded" in message and "\n" not in message


def test_an_absent_hub_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a closed port as the hub, only the local cache is asked; afterwards all is as before."""
    import time

    from huggingface_hub import constants

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    before = constants.HF_HUB_OFFLINE
    began_s = time.monotonic()
    with pytest.raises(WeightsUnavailable):
        load_vae("nobody/nothing-here")
    assert time.monotonic() - began_s < 5
    assert before == constants.HF_HUB_OFFLINE


def test_digests_name_both_weight_files_and_their_bytes() -> None:
    import hashlib

    digests = asset_digests()
    assert (
        digests["embedded_coca.safetensors"]
        == hashlib.sha256(COCA_WEIGHTS.read_bytes()).hexdigest()
    )
    assert set(digests) == {
        "embedded_coca.safetensors",
        "embedded_vae/diffusion_pytorch_model.safetensors",
    }
