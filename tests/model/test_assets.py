"""How good the embedded models are on scenes they never saw; the promises of the model card."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from model.assets.pictures import jpeg, scene_frame
from model.encoders import ASSETS, load_captioner_model, load_clip, load_vae
from pipelines.world.scenes import COLOURS, SHAPES, Scene, random_scene

# Training draws from default_rng([seed, tag]); a single number is another stream.
UNSEEN_SEED = 990_001
SCENES = 300
_SIZES_PX = ((320, 180), (112, 64), (240, 180))


def _clean(frame: np.ndarray) -> np.ndarray:
    return frame


def _compressed(frame: np.ndarray) -> np.ndarray:
    return jpeg(frame, 70)


def _unseen(count: int, size_px: tuple[int, int] | None = None) -> list[tuple[Scene, np.ndarray]]:
    rng = np.random.default_rng(UNSEEN_SEED)
    pairs = []
    for index in range(count):
        scene = random_scene(rng)
        pairs.append((scene, scene_frame(scene, rng, size_px or _SIZES_PX[index % 3])))
    return pairs


@pytest.fixture(scope="module")
def unseen() -> list[tuple[Scene, np.ndarray]]:
    return _unseen(SCENES)


@pytest.mark.parametrize("film", [_clean, _compressed])
def test_captions_name_the_shape_and_the_colour(
    unseen: list[tuple[Scene, np.ndarray]], film: Callable[[np.ndarray], np.ndarray]
) -> None:
    captioner = load_captioner_model()
    right = 0
    for scene, frame in unseen:
        caption = captioner.generate_captions(film(frame)[None])[0]
        right += caption.startswith(scene.short_caption + " ")
    assert right / SCENES >= 0.95


@pytest.mark.parametrize("film", [_clean, _compressed])
@pytest.mark.parametrize("caption_kind", ["caption", "still_caption", "short_caption"])
def test_the_true_caption_outranks_a_near_miss(
    unseen: list[tuple[Scene, np.ndarray]],
    film: Callable[[np.ndarray], np.ndarray],
    caption_kind: str,
) -> None:
    clip = load_clip()
    rng = np.random.default_rng(UNSEEN_SEED + 1)
    won = 0
    for scene, frame in unseen:
        wrong = []
        for field, names in (("shape", SHAPES), ("colour", COLOURS)):
            others = [name for name in names if name != getattr(scene, field)]
            changed = {**vars(scene), field: others[int(rng.integers(len(others)))]}
            wrong.append(getattr(Scene(**changed), caption_kind))
        texts = [getattr(scene, caption_kind), *wrong]
        true, *misses = clip.scores(clip.preprocess(film(frame)[None]), texts)[0].tolist()
        won += sum(true > miss for miss in misses)
    assert won / (2 * SCENES) >= 0.99


@pytest.mark.parametrize(("size_px", "count"), [((112, 64), 100), ((320, 180), 30)])
@pytest.mark.parametrize("film", [_clean, _compressed])
def test_the_autoencoder_rebuilds_unseen_scenes(
    size_px: tuple[int, int], count: int, film: Callable[[np.ndarray], np.ndarray]
) -> None:
    autoencoder = load_vae()
    psnrs_db, latents = [], []
    for _, frame in _unseen(count, size_px):
        image = torch.from_numpy(film(frame)).permute(2, 0, 1)[None].float() / 127.5 - 1
        latent = autoencoder.encode(image)
        rebuilt = autoencoder.decode(latent, size_px[1], size_px[0])
        psnrs_db.append(float(10 * torch.log10(4 / (rebuilt - image).square().mean())))
        latents.append(latent.flatten())
    assert np.mean(psnrs_db) >= 30
    assert 0.85 < float(torch.cat(latents).std()) < 1.15


def test_text_tokens_keep_every_motion_apart() -> None:
    """The captions differ in one word; the features of that word and of the end must differ."""
    clip = load_clip()
    texts = [f"a red circle {way} over a noise background" for way in ("moving left", "moving up")]
    first, second = clip.encode_text_tokens([*texts])
    differ = (first - second).norm(dim=-1) / first.norm(dim=-1)
    assert float(differ[:5].max()) < 1e-5  # start, a, red, circle, moving: the tower is causal
    assert float(differ[5:10].min()) > 0.05


def test_the_assets_are_small() -> None:
    total_bytes = sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file())
    assert total_bytes < 10e6
