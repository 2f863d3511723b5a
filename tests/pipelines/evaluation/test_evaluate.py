"""The whole evaluation with untrained networks: what is sampled, written, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.stage_sampling import StageSampling
from pipelines.config import RequestError, TrackingConfig
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.evaluate import evaluate, prepare
from pipelines.evaluation.measure import MEASURES
from pipelines.evaluation.sampling import CONDITIONS, Wanted, base_videos, masks_without
from pipelines.generation.load_cascade import load_cascade
from pipelines.training.latents.clip_encoder import weights_digest
from tests.pipelines.evaluation.test_fvd import MeanColours
from tests.pipelines.generation.test_generate import write_checkpoint
from tests.pipelines.training.small_dataset import picture, write_dataset

FRAMES, FPS = 4, 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset and a cascade of two untrained checkpoints."""
    from model.encoders import load_clip, load_vae

    folder = tmp_path_factory.mktemp("evaluation")
    write_dataset(folder / "set", shards=1, clips_per_shard=3)
    modules = {"vae": load_vae().vae, "clip": load_clip().model}
    encoders = {
        role: {"name": "embedded", "digest": weights_digest(module)}
        for role, module in modules.items()
    }
    torch.manual_seed(0)
    write_checkpoint(folder / "base", "base", encoders, (56, 32))
    write_checkpoint(folder / "refine", "refine", encoders, (112, 64))
    return folder


def request(made: Path, out: Path, **changes: Any) -> EvaluateConfig:
    settings = {"refine": "none", "clips": 2, "base_steps": 2, "refine_steps": 2, "threads": 1}
    return EvaluateConfig(
        base=str(made / "base"),
        dataset=str(made / "set"),
        out=str(out),
        frames=FRAMES,
        fps=FPS,
        tracking=TrackingConfig(enabled=False),
        **{**settings, **changes},
    )


def record_of(config: EvaluateConfig) -> dict[str, Any]:
    evaluate(prepare(config))
    return json.loads((Path(config.out) / "evaluation.json").read_text())


def test_the_base_alone_is_judged_against_the_truth(made: Path, tmp_path: Path) -> None:
    record = record_of(request(made, tmp_path, seeds=2, batch=3))
    assert set(record) >= {"checkpoints", "dataset", "unseen_clips", "summary", "meaning", "videos"}
    assert list(record["checkpoints"]) == ["base"] and record["unseen_clips"] == 4
    assert record["summary"]["truth_psnr_db"]["videos"] == 4
    assert set(record["meaning"]) == set(record["summary"]) <= set(MEASURES)
    assert not [name for name in record["summary"] if "refined" in name]
    names = {row["video"] for row in record["videos"]}
    assert len(names) == 4 and all((tmp_path / name).is_file() for name in names)
    assert (tmp_path / "evaluation.png").is_file()


def test_with_a_refinement_true_clips_are_refined_too(made: Path, tmp_path: Path) -> None:
    config = request(made, tmp_path, clips=1, refine=str(made / "refine"), refine_truth=True)
    record = record_of(config)
    (row,) = record["videos"]
    assert set(record["checkpoints"]) == {"base", "refine"}
    assert {"true_refined_psnr_db", "made_bicubic_feature_distance"} <= set(row["measures"])
    assert "refined_sharpness_gain" in row["measures"]
    assert "refined_temporal_high_off" in row["measures"]


def test_a_batch_gives_what_the_cascade_gives_one_by_one(made: Path, tmp_path: Path) -> None:
    prepared = prepare(request(made, tmp_path))
    cascade, _ = load_cascade(prepared.base, None, "cpu")
    wanted = [Wanted(picture(i, 0), f"a thing moving {w}", "", i) for i, w in enumerate("ab")]
    sampling = StageSampling(cascade.base_sampler, 3, 2.0)
    together = base_videos(cascade, wanted, frames=FRAMES, fps=FPS, sampling=sampling)
    for one, frames_FHWC in zip(wanted, together, strict=True):
        alone, _ = cascade.generate(
            one.image_HWC, one.prompt, seed=one.seed, num_frames=FRAMES, fps=FPS, base_steps=3,
            guidance_base=2.0, show_bar=False,
        )  # fmt: skip
        assert np.abs(alone.astype(int) - frames_FHWC.astype(int)).max() <= 1


@pytest.mark.parametrize("withheld", CONDITIONS)
def test_what_is_withheld_does_not_reach_the_video(
    made: Path, tmp_path: Path, withheld: str
) -> None:
    """Another value of the withheld condition alone changes nothing; with it given, it does."""
    prepared = prepare(request(made, tmp_path))
    cascade, _ = load_cascade(prepared.base, None, "cpu")
    rest = tuple(name for name in CONDITIONS if name != withheld)
    sampling = StageSampling(cascade.base_sampler, 2, 1.0)

    def sampled(image_seed: int, prompt: str, without: tuple[str, ...]) -> np.ndarray:
        one = [Wanted(picture(image_seed, 0), prompt, "", 0)]
        return base_videos(
            cascade, one, frames=FRAMES, fps=FPS, sampling=sampling, withheld=without
        )[0]

    def changed(without: tuple[str, ...]) -> bool:
        first = sampled(0, "a red ring moving left", without)
        if withheld == "text":
            return bool((first != sampled(0, "a blue star moving up", without)).any())
        return bool((first != sampled(5, "a red ring moving left", without)).any())

    assert changed(rest)
    assert not changed(CONDITIONS)


def test_the_frechet_distance_is_of_the_named_network(made: Path, tmp_path: Path) -> None:
    network = tmp_path / "network.pt"
    torch.jit.script(MeanColours()).save(str(network))
    record = record_of(request(made, tmp_path / "out", i3d=str(network)))
    found = record["frechet_video_distance"]
    assert found["videos"] == found["true_clips"] == 2 and found["dimensions"] == 6
    assert found["distance"] > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"withhold": ("sound",)}, "--withhold sound"),
        ({"refine_truth": True}, "--refine-truth"),
        ({"i3d": "/no/such/file.pt"}, "--i3d /no/such/file.pt"),
        ({"base": "/no/such/folder"}, "--base"),
    ],
)
def test_wrong_requests_are_refused_before_anything_runs(
    made: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    values = {**request(made, tmp_path).__dict__, **changes}
    with pytest.raises(RequestError, match=words):
        prepare(EvaluateConfig(**values))


def test_more_steps_than_noise_levels_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="noise levels"):
        record_of(request(made, tmp_path, base_steps=1001))


def test_masks_name_what_they_drop() -> None:
    masks = masks_without(("content",), 2)
    assert masks.content_B.all() and not masks.detail_B.any() and not masks.text_B.any()
    with pytest.raises(ValueError, match="sound"):
        masks_without(("sound",), 1)
