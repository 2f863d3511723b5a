"""One shard to one pack, with the embedded networks, in this process."""

import dataclasses

import numpy as np
import pytest
import torch

from pipelines.config import RequestError
from pipelines.media import read_clip_frames
from pipelines.storage import Store
from pipelines.training.clip_encoder import (
    ClipEncoder,
    ClipUnreadable,
    ShardTask,
    frames_to_network,
    read_members,
    weights_digest,
)
from pipelines.training.config import EncodeConfig, EncodersConfig, SizesConfig
from pipelines.training.encode import prepare
from pipelines.training.packs import map_safetensors
from tests.pipelines.training.small_dataset import write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dataset") / "set")


@pytest.fixture(scope="module")
def encoder():
    torch.set_num_threads(1)
    return ClipEncoder(EncodersConfig(), SizesConfig(), "base")


@pytest.fixture
def task(dataset, tmp_path) -> ShardTask:
    config = EncodeConfig(dataset=str(dataset), latents=str(tmp_path / "latents"))
    return prepare(config).tasks[-1]


def test_a_pack_holds_each_clips_frames_at_16_per_second(encoder, task, tmp_path):
    commit = encoder.encode_shard(Store.open(str(tmp_path)), task)
    arrays = map_safetensors(tmp_path / task.pack)
    assert [row["kind"] for row in commit.rows].count("image") == 1
    for row in commit.rows:
        # 24 frames at 8 per second are 3 s: 48 at 16. A still is one frame.
        assert row["num_frames"] == (1 if row["kind"] == "image" else 48)
    total = sum(row["num_frames"] for row in commit.rows)
    assert arrays["latents_NCHW"].shape == (total, 4, 16, 28)
    assert arrays["image_embeddings_ND"].shape == (total, 128)
    assert arrays["latents_NCHW"].dtype == np.float16
    # Captions are encoded once each, the empty one first.
    texts = {row["caption"] for row in commit.rows}
    assert len(arrays["text_KLD"]) == 1 + len(texts)
    empty = encoder.clip.encode_text_tokens([""])[0].numpy().astype(np.float16)
    np.testing.assert_array_equal(arrays["text_KLD"][0], empty)


def test_stored_latents_are_those_of_the_clips_frames_in_order(encoder, task, dataset, tmp_path):
    commit = encoder.encode_shard(Store.open(str(tmp_path)), task)
    arrays = map_safetensors(tmp_path / task.pack)
    members = {clip["clip_id"]: data for clip, data in read_members(
        dataset / "shards" / task.shard, task.clips)}  # fmt: skip
    row = next(row for row in commit.rows if row["kind"] == "video")
    frames = read_clip_frames(
        members[row["clip_id"]], fps=16, width_px=112, height_px=64, max_frames=64
    )
    stored = arrays["latents_NCHW"][row["first_row"] : row["first_row"] + len(frames)]
    direct = encoder.vae.encode(frames_to_network(frames)).numpy()
    np.testing.assert_allclose(stored.astype(np.float32), direct, atol=5e-3, rtol=5e-3)
    # Frame by frame, in order: the same frames backwards are further away.
    assert np.abs(stored - direct).mean() < 0.1 * np.abs(stored - direct[::-1]).mean()


def test_equal_work_gives_equal_bytes_and_is_not_done_twice(encoder, task, tmp_path):
    one, two = Store.open(str(tmp_path / "one")), Store.open(str(tmp_path / "two"))
    assert encoder.encode_shard(one, task) == encoder.encode_shard(two, task)
    stamp = (tmp_path / "one" / task.pack).stat().st_mtime_ns
    encoder.encode_shard(one, task)
    assert (tmp_path / "one" / task.pack).stat().st_mtime_ns == stamp
    recaptioned = [{**clip, "caption": "something else"} for clip in task.clips]
    encoder.encode_shard(one, dataclasses.replace(task, clips=recaptioned))
    assert (tmp_path / "one" / task.pack).stat().st_mtime_ns != stamp


def test_a_shard_that_is_not_the_indexed_one_is_refused_by_name(encoder, task, tmp_path):
    cut = tmp_path / "set" / "shards" / task.shard
    cut.parent.mkdir(parents=True)
    data = Store(task.dataset).read_bytes(f"shards/{task.shard}")
    cut.write_bytes(data[: len(data) // 1024 * 512])
    moved = dataclasses.replace(task, dataset=str(tmp_path / "set"))
    with pytest.raises(RequestError, match=f"{task.shard}: damaged"):
        encoder.encode_shard(Store.open(str(tmp_path / "latents")), moved)
    cut.unlink()
    with pytest.raises(RequestError, match=f"{task.shard}: missing"):
        encoder.encode_shard(Store.open(str(tmp_path / "latents")), moved)


def test_a_clip_that_cannot_be_decoded_is_named_and_nothing_is_written(encoder, task, tmp_path):
    with pytest.raises(ClipUnreadable, match=f"clip {task.clips[0]['clip_id']}"):
        encoder._frames(task.clips[0], b"not a film at all" * 50)


def test_refinement_keeps_high_resolution_clips_and_no_image_vectors(dataset, tmp_path):
    config = EncodeConfig(dataset=str(dataset), latents=str(tmp_path / "l"), stage="refine")
    tasks = prepare(config).tasks
    assert all("high_res" in clip["tiers"] for task in tasks for clip in task.clips)
    assert sum(len(task.clips) for task in tasks) == 2
    encoder = ClipEncoder(EncodersConfig(), SizesConfig(), "refine")
    encoder.encode_shard(Store.open(str(tmp_path)), tasks[0])
    arrays = map_safetensors(tmp_path / tasks[0].pack)
    assert arrays["latents_NCHW"].shape[1:] == (4, 45, 80)
    assert "image_embeddings_ND" not in arrays


def test_unknown_encoders_are_refused_in_one_line():
    with pytest.raises(RequestError, match="encoders: "):
        ClipEncoder(EncodersConfig(clip="ViT-B-32:no-such-weights"), SizesConfig(), "base")


def test_a_weights_digest_sees_one_changed_value(encoder):
    module = torch.nn.Linear(3, 2)
    before = weights_digest(module)
    assert before == weights_digest(module)
    with torch.no_grad():
        module.weight[0, 0] += 1e-6
    assert before != weights_digest(module)
