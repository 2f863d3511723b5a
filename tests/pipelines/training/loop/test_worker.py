"""The training loop as one worker, in this process: what Ray adds is in test_train.py."""

import dataclasses
import json
from collections import Counter

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from pipelines.config import RequestError
from pipelines.storage import Store
from pipelines.training.checkpoints.checkpoint import latest_checkpoint, open_checkpoint
from pipelines.training.feed.feed import Feed
from pipelines.training.latents.on_disk import open_latents
from pipelines.training.randomness import stream
from tests.pipelines.training.synthetic_latents import write_latents
from tests.pipelines.training.tiny_jobs import (
    TINY_MIXTURE,
    base_request,
    refine_request,
    train_here,
)


@pytest.fixture(scope="module")
def latents(tmp_path_factory):
    return write_latents(tmp_path_factory.mktemp("latents") / "base")


@pytest.fixture(scope="module")
def trained(latents, tmp_path_factory):
    """Nine steps without a break, checkpoints at 4, 8 and 9."""
    folder = tmp_path_factory.mktemp("trained")
    assert train_here(base_request(latents, folder, 9)) == []
    return folder


def digest(folder, step):
    return json.loads((folder / f"step-{step:08d}" / "checkpoint.json").read_text())["digest"]


def test_two_commands_end_with_the_bytes_of_one(latents, trained, tmp_path):
    train_here(base_request(latents, tmp_path, 4))
    assert digest(tmp_path, 4) == digest(trained, 4)
    request = base_request(latents, tmp_path, 9)
    assert request.first_step == 4
    train_here(request)
    assert digest(tmp_path, 8) == digest(trained, 8)
    assert digest(tmp_path, 9) == digest(trained, 9)


def test_a_run_that_goes_on_shows_the_loss_of_one_that_never_stopped(latents, trained, tmp_path):
    train_here(base_request(latents, tmp_path, 4))
    train_here(base_request(latents, tmp_path, 9))
    ends = [latest_checkpoint(Store.open(str(f))).header.loss for f in (trained, tmp_path)]
    assert ends[0] == ends[1]


def test_what_a_killed_run_left_half_made_is_removed(latents, tmp_path):
    left = tmp_path / ".tmp-step-00000002-0123abcd" / "unet"
    left.mkdir(parents=True)
    train_here(base_request(latents, tmp_path, 2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest.json", "step-00000002"]


def test_another_seed_gives_other_weights(latents, trained, tmp_path):
    request = base_request(latents, tmp_path, 4)
    train_here(dataclasses.replace(request, job=dataclasses.replace(request.job, seed=1)))
    assert digest(tmp_path, 4) != digest(trained, 4)


def test_the_ledger_names_what_the_feed_gave(latents, trained):
    feed = Feed(
        open_latents(str(latents), "base"),
        TINY_MIXTURE,
        seed=stream(0, "feed", 0),
        tier="base",
        validation_clips=2,
    )
    expected = Counter(s.clip_id for step in range(9) for s in feed.samples(step)[1])
    found = Counter()
    for step in (4, 8, 9):
        rows = pq.read_table(trained / f"step-{step:08d}" / "lineage.parquet").to_pylist()
        assert all(step - 4 <= row["first_step"] - 1 < step for row in rows)
        found.update({row["clip_id"]: row["times"] for row in rows})
    assert found == expected
    header = latest_checkpoint(Store(str(trained))).header
    assert header.samples_seen == sum(expected.values())


def test_the_base_checkpoint_loads_in_diffusers_and_says_the_same(trained):
    from diffusers import I2VGenXLUNet

    from model.unet import VideoUNet

    directory = trained / "step-00000009"
    for part in ("unet", "ema"):
        theirs = I2VGenXLUNet.from_pretrained(directory, subfolder=part).eval()
        ours = VideoUNet.load(directory / part).eval()
        torch.manual_seed(0)
        given = {
            "sample": torch.randn(1, 4, 4, 4, 6),
            "timestep": torch.tensor([500]),
            "fps": torch.tensor([8.0]),
            "image_latents": torch.randn(1, 4, 4, 4, 6),
            "image_embeddings": torch.randn(1, 1, 128),
            "encoder_hidden_states": torch.randn(1, 5, 128),
        }
        with torch.no_grad():
            difference = (theirs(**given).sample - ours(**given)).abs().max()
        assert difference < 1e-4


def test_the_last_checkpoint_says_finished_and_averages_are_not_the_weights(trained):
    checkpoint = open_checkpoint(str(trained), "base", "--base")
    assert checkpoint.header.finished
    assert 0 < checkpoint.header.loss < 5
    directory = trained / "step-00000009"
    raw = (directory / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    averaged = (directory / "ema" / "diffusion_pytorch_model.safetensors").read_bytes()
    assert raw != averaged


def test_refinement_starts_from_the_averaged_base_and_ends_with_premium(trained, tmp_path):
    latents = write_latents(tmp_path / "latents", "refine")
    request = refine_request(latents, tmp_path / "checkpoints", trained, 4, 3)
    assert request.job.base["digest"] == digest(trained, 9)
    train_here(request)
    checkpoint = open_checkpoint(str(tmp_path / "checkpoints"), "refine", "--refine")
    assert (checkpoint.header.phase, checkpoint.header.step) == ("premium", 7)
    tiers = {
        r["clip_id"]: r["tiers"] for r in open_latents(str(latents), "refine").index.to_pylist()
    }
    rows = pq.read_table(tmp_path / "checkpoints" / "step-00000007" / "lineage.parquet").to_pylist()
    # Since the checkpoint of step 4, where the premium phase begins.
    assert rows and all("premium" in tiers[row["clip_id"]] for row in rows)
    with pytest.raises(RequestError, match="checkpoint of the refine stage"):
        refine_request(latents, tmp_path / "other", tmp_path / "checkpoints", 4, 3)


def test_a_loss_that_is_not_finite_stops_with_the_clips_named(tmp_path):
    folder = write_latents(tmp_path / "latents", lengths=[17] * 12, clips_per_pack=12)
    poisoned = tmp_path / "poisoned"
    _copy_with_infinite_frame(folder, poisoned)
    request = base_request(poisoned, tmp_path / "checkpoints", 30, validation_clips=0)
    (reason,) = train_here(request)
    assert "loss" in reason and "clips of this step: " in reason
    left = latest_checkpoint(Store(str(tmp_path / "checkpoints")))
    named = reason.split("last good checkpoint: ")[1]
    assert named == (left.store.uri if left else "none")
    if left:
        tensors = (tmp_path / "checkpoints" / left.name / "unet").glob("*.safetensors")
        from safetensors.torch import load_file

        assert all(v.isfinite().all() for v in load_file(next(iter(tensors))).values())


def _copy_with_infinite_frame(folder, target):
    """The same latents with one clip's first frames infinite, published properly."""
    import shutil

    from pipelines.training.latents.on_disk import Pack, pack_name, publish, read_header, write_pack
    from pipelines.training.latents.packs import map_safetensors

    shutil.copytree(folder, target)
    store = Store(str(target))
    arrays = {k: np.array(v) for k, v in map_safetensors(target / pack_name(0)).items()}
    rows = store.read_table("index.parquet").to_pylist()
    first = rows[5]["first_row"]
    arrays["latents_NCHW"][first : first + rows[5]["num_frames"]] = np.inf
    commit = write_pack(store, pack_name(0), "poisoned", arrays, rows)
    assert isinstance(commit.pack, Pack)
    header = read_header(store)
    store.remove("latents.json")  # published once, never changed
    publish(store, header, [commit])


def test_a_finished_training_is_refused_and_changed_settings_are_named(latents, trained):
    with pytest.raises(RequestError, match="already trained to step 9"):
        base_request(latents, trained, 9)
    from pipelines.training.config import TrainBaseConfig
    from pipelines.training.request import prepare_base

    plain = base_request(latents, trained, 12).job.config
    config = TrainBaseConfig(
        latents=str(latents), checkpoints=str(trained), steps=20, init="fresh", seed=5
    )
    with pytest.raises(RequestError, match=r"trained from something else \(.*seed"):
        prepare_base(config)
    assert plain["seed"] == 0
