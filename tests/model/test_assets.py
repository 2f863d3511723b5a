"""How good the embedded models are on scenes they never saw; the promises of the model card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model.assets.pictures import jpeg, scene_frame
from model.encoders import ASSETS, load_captioner_model, load_clip, load_vae
from pipelines.world.scenes import COLOURS, MOTION_PHRASES, SHAPES, Scene, random_scene

# Training draws from default_rng([seed, tag]); a single number is another stream.
UNSEEN_SEED = 990_001
SCENES = 300
_SIZES_PX = ((320, 180), (112, 64), (240, 180))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small a model is no faster with more, and far slower where other work shares the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _clean(frame: np.ndarray) -> np.ndarray:
    return frame


def _compressed(frame: np.ndarray) -> np.ndarray:
    return jpeg(frame, 70)


def _unseen(count: int, size_px: tuple[int, int]) -> list[tuple[Scene, np.ndarray]]:
    rng = np.random.default_rng([UNSEEN_SEED, *size_px])
    scenes = [random_scene(rng) for _ in range(count)]
    return [(scene, scene_frame(scene, rng, size_px)) for scene in scenes]


@pytest.fixture(scope="module", params=[_clean, _compressed])
def shown(request: pytest.FixtureRequest) -> list[tuple[list[Scene], np.ndarray]]:
    """(scenes, frames as the film shows them), a third of all at each size."""
    groups = []
    for size_px in _SIZES_PX:
        pairs = _unseen(SCENES // 3, size_px)
        frames_BHWC = np.stack([request.param(frame) for _, frame in pairs])
        groups.append(([scene for scene, _ in pairs], frames_BHWC))
    return groups


def test_captions_name_the_shape_and_the_colour(
    shown: list[tuple[list[Scene], np.ndarray]],
) -> None:
    captioner = load_captioner_model()
    right = 0
    for scenes, frames_BHWC in shown:
        captions = captioner.generate_captions(frames_BHWC)
        for scene, caption in zip(scenes, captions, strict=True):
            right += caption.startswith(scene.short_caption + " ")
    assert right / SCENES >= 0.95


def test_the_true_caption_outranks_a_near_miss(
    shown: list[tuple[list[Scene], np.ndarray]],
) -> None:
    clip = load_clip()
    rng = np.random.default_rng(UNSEEN_SEED)
    embeddings_BD = F.normalize(
        torch.cat([clip.encode_image(clip.preprocess(frames)) for _, frames in shown]), dim=-1
    )
    all_scenes = [scene for scenes, _ in shown for scene in scenes]
    for kind in ("caption", "still_caption", "short_caption"):
        texts = [
            getattr(variant, kind)
            for scene in all_scenes
            for variant in (scene, *_near_misses(scene, rng))
        ]
        texts_B3D = F.normalize(clip.encode_text(texts), dim=-1).view(SCENES, 3, -1)
        scores_B3 = (texts_B3D * embeddings_BD[:, None]).sum(-1)
        assert float((scores_B3[:, :1] > scores_B3[:, 1:]).float().mean()) >= 0.99, kind


def _near_misses(scene: Scene, rng: np.random.Generator) -> list[Scene]:
    """The scene with another shape, and with another colour."""
    shapes = [name for name in SHAPES if name != scene.shape]
    colours = [name for name in COLOURS if name != scene.colour]
    return [
        replace(scene, shape=shapes[int(rng.integers(len(shapes)))]),
        replace(scene, colour=colours[int(rng.integers(len(colours)))]),
    ]


@pytest.mark.parametrize(("size_px", "count"), [((112, 64), 60), ((320, 180), 15)])
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
    """The captioned frame cannot show motion: the features that condition a video must tell it."""
    clip = load_clip()
    texts = [f"a red circle {way} over a noise background" for way in MOTION_PHRASES.values()]
    tokens_BL = clip.tokenizer(texts)
    ends_B = (tokens_BL == clip.tokenizer.eot_token_id).int().argmax(1)
    ends_BD = clip.encode_text_tokens(texts)[torch.arange(len(texts)), ends_B]
    apart_BB = torch.cdist(ends_BD, ends_BD) / ends_BD.norm(dim=-1).mean()
    assert float((apart_BB + torch.eye(len(texts))).min()) > 0.5


def test_the_assets_are_small() -> None:
    total_bytes = sum(path.stat().st_size for path in ASSETS.rglob("*") if path.is_file())
    assert total_bytes < 16e6
