"""One pack at a time with the embedded networks: what it holds, and what it takes over."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from pipelines.config import RequestError
from pipelines.media import read_clip_frames
from pipelines.storage import Store
from pipelines.training.config import EncodeConfig, EncodersConfig
from pipelines.training.latents.clip_encoder import ClipEncoder, frames_to_network
from pipelines.training.latents.encode_plan import prepare
from pipelines.training.latents.pack_encoder import PackEncoder, PackTask
from pipelines.training.latents.packs import map_safetensors
from pipelines.training.latents.recipe import recipe_of
from pipelines.training.latents.reuse import FormerFeatures, FormerIndex, Takeover, open_formers
from pipelines.training.latents.shard_members import Shards
from tests.pipelines.training.small_dataset import write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dataset") / "set")


@pytest.fixture(scope="module")
def encoder():
    torch.set_num_threads(1)
    return ClipEncoder(EncodersConfig(), recipe_of(EncodeConfig()))


def tasks_of(dataset, folder, **changes) -> list[PackTask]:
    return prepare(EncodeConfig(dataset=str(dataset), latents=str(folder), **changes)).tasks


@pytest.fixture
def task(dataset, tmp_path) -> PackTask:
    return tasks_of(dataset, tmp_path / "planned")[-1]


def packs_of(encoder, dataset, formers: FormerIndex | None = None, decoders: int = 1):
    digests = {role: named["digest"] for role, named in encoder.names.items()}
    former = FormerFeatures(formers.formers if formers else [], encoder.recipe, digests)
    return PackEncoder(encoder, str(dataset), former, decoders)


def test_a_pack_holds_each_clips_frames_at_16_per_second(encoder, dataset, task, tmp_path):
    made = packs_of(encoder, dataset).write(Store.open(str(tmp_path)), task)
    arrays = map_safetensors(tmp_path / task.pack)
    rows = made.commit.rows
    assert [row["kind"] for row in rows].count("image") == 1
    for row in rows:
        # 24 frames at 8 per second are 3 s: 48 at 16. A still is one frame.
        assert row["num_frames"] == (1 if row["kind"] == "image" else 48)
    total = sum(row["num_frames"] for row in rows)
    assert arrays["latents_NCHW"].shape == (total, 4, 16, 28)
    assert arrays["image_embeddings_ND"].shape == (total, 128)
    assert arrays["latents_NCHW"].dtype == np.float16
    # Captions are encoded once each, the empty one first.
    texts = {row["caption"] for row in rows}
    assert len(arrays["text_KLD"]) == 1 + len(texts)
    np.testing.assert_array_equal(arrays["text_KLD"][0], encoder.text(""))
    for row in rows:
        np.testing.assert_array_equal(
            arrays["text_KLD"][row["text_row"]], encoder.text(row["caption"])
        )


def test_stored_latents_are_those_of_the_clips_frames_in_order(encoder, dataset, task, tmp_path):
    made = packs_of(encoder, dataset).write(Store.open(str(tmp_path)), task)
    arrays = map_safetensors(tmp_path / task.pack)
    row = next(row for row in made.commit.rows if row["kind"] == "video")
    clip = next(clip for clip in task.clips if clip["clip_id"] == row["clip_id"])
    data = Shards(str(dataset)).members(task.shard, task.shard_sha256).read(clip)
    frames = read_clip_frames(data, fps=16, width_px=112, height_px=64, max_frames=64)
    stored = arrays["latents_NCHW"][row["first_row"] : row["first_row"] + len(frames)]
    direct = encoder.vae.encode(frames_to_network(frames)).numpy()
    np.testing.assert_allclose(stored.astype(np.float32), direct, atol=5e-3, rtol=5e-3)
    # Frame by frame, in order: the same frames backwards are further away.
    assert np.abs(stored - direct).mean() < 0.1 * np.abs(stored - direct[::-1]).mean()


def test_equal_work_gives_equal_bytes_and_is_not_done_twice(encoder, dataset, task, tmp_path):
    one, two = Store.open(str(tmp_path / "one")), Store.open(str(tmp_path / "two"))
    packs, wide = packs_of(encoder, dataset), packs_of(encoder, dataset, decoders=4)
    first = packs.write(one, task)
    assert first.reused == 0
    assert first.commit == wide.write(two, task).commit
    stamp = (tmp_path / "one" / task.pack).stat().st_mtime_ns
    assert packs.write(one, task).reused == len(task.clips)
    assert (tmp_path / "one" / task.pack).stat().st_mtime_ns == stamp
    recaptioned = [{**clip, "caption": "something else"} for clip in task.clips]
    packs.write(one, dataclasses.replace(task, clips=recaptioned))
    assert (tmp_path / "one" / task.pack).stat().st_mtime_ns != stamp


def test_packs_are_of_bounded_size_and_hold_every_clip_once(dataset, tmp_path):
    for size in (1, 2, 3):
        tasks = tasks_of(dataset, tmp_path / "l", pack_clips=size)
        assert all(1 <= len(task.clips) <= size for task in tasks)
        ids = [clip["clip_id"] for task in tasks for clip in task.clips]
        assert len(ids) == len(set(ids)) == 5
        assert len({task.pack for task in tasks}) == len(tasks)


def test_a_shard_that_is_not_the_indexed_one_is_refused_by_name(encoder, task, tmp_path, dataset):
    cut = tmp_path / "set" / "shards" / task.shard
    cut.parent.mkdir(parents=True)
    data = (dataset / "shards" / task.shard).read_bytes()
    cut.write_bytes(data[: len(data) // 1024 * 512])
    with pytest.raises(RequestError, match=f"{task.shard}: damaged"):
        packs_of(encoder, tmp_path / "set").write(Store.open(str(tmp_path / "latents")), task)
    cut.unlink()
    with pytest.raises(RequestError, match=f"{task.shard}: missing"):
        packs_of(encoder, tmp_path / "set").write(Store.open(str(tmp_path / "latents")), task)


def test_a_member_with_other_bytes_than_its_row_names_is_refused(encoder, dataset, task, tmp_path):
    clips = [{**clip, "content_sha256": "0" * 64} for clip in task.clips]
    wrong = dataclasses.replace(task, clips=clips)
    with pytest.raises(RequestError, match=f"is not the clip {clips[0]['clip_id']}"):
        packs_of(encoder, dataset).write(Store.open(str(tmp_path)), wrong)


def test_refinement_keeps_high_resolution_clips_and_no_image_vectors(dataset, tmp_path):
    config = EncodeConfig(stage="refine", pack_clips=1)
    tasks = tasks_of(dataset, tmp_path / "l", stage="refine")
    assert all("high_res" in clip["tiers"] for task in tasks for clip in task.clips)
    assert sum(len(task.clips) for task in tasks) == 2
    encoder = ClipEncoder(EncodersConfig(), recipe_of(config))
    packs_of(encoder, dataset).write(Store.open(str(tmp_path)), tasks[0])
    arrays = map_safetensors(tmp_path / tasks[0].pack)
    assert arrays["latents_NCHW"].shape[1:] == (4, 45, 80)
    assert "image_embeddings_ND" not in arrays


# --- taking over ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def former(encoder, dataset, tmp_path_factory):
    """An unfinished encode of the whole dataset: packs and commits, no latents.json."""
    folder = tmp_path_factory.mktemp("former")
    packs = packs_of(encoder, dataset)
    for task in tasks_of(dataset, tmp_path_factory.mktemp("plan")):
        packs.write(Store.open(str(folder)), task)
    return folder


def without_former(task: PackTask) -> PackTask:
    return dataclasses.replace(task, takeover=Takeover())


def test_taken_over_clips_give_the_bytes_of_a_fresh_encode(encoder, dataset, former, tmp_path):
    fresh = packs_of(encoder, dataset)
    # Other pack sizes: each clip lies elsewhere than it did.
    tasks = tasks_of(dataset, tmp_path / "reused", reuse=str(former), pack_clips=1)
    formers = open_formers(str(former), Store.open(str(tmp_path / "reused")), encoder.recipe)
    nothing_to_decode = packs_of(encoder, tmp_path / "no shards here", formers)
    for task in tasks:
        made = nothing_to_decode.write(Store.open(str(tmp_path / "reused")), task)
        assert made.reused == len(task.clips)
        direct = fresh.write(Store.open(str(tmp_path / "fresh")), without_former(task))
        assert direct.reused == 0
        assert made.commit == direct.commit
        reused, encoded = ((tmp_path / n / task.pack).read_bytes() for n in ("reused", "fresh"))
        assert reused == encoded


def test_only_what_is_new_is_encoded(encoder, former, tmp_path):
    grown = write_dataset(tmp_path / "grown", shards=3)  # two more clips than before
    tasks = tasks_of(grown, tmp_path / "l", reuse=str(former))
    formers = open_formers(str(former), Store.open(str(tmp_path / "l")), encoder.recipe)
    packs = packs_of(encoder, grown, formers)
    made = [packs.write(Store.open(str(tmp_path / "l")), task) for task in tasks]
    assert sum(one.reused for one in made) == 5
    assert sum(one.commit.pack.clips for one in made) == 7
    fresh = packs_of(encoder, grown)
    for task, one in zip(tasks, made, strict=True):
        direct = fresh.write(Store.open(str(tmp_path / "fresh")), without_former(task))
        assert direct.commit == one.commit


def test_an_unfinished_run_over_an_older_dataset_gives_its_clips(encoder, former, tmp_path):
    grown = write_dataset(tmp_path / "grown", shards=3)
    own = Store.open(str(former))
    request = prepare(EncodeConfig(dataset=str(grown), latents=str(former)))
    digests = {role: named["digest"] for role, named in encoder.names.items()}
    counts = [request.former.count(t.takeover, encoder.recipe, digests) for t in request.tasks]
    assert sum(counts) == 5
    assert len(open_formers("", own, encoder.recipe).formers) == 2


@pytest.mark.parametrize(
    "changes",
    [{"latent": "moments"}, {"fps": 8}, {"max_frames": 32}, {"width_px": 96}, {"device": "cuda"},
     {"version": 0}, {"stage": "refine"}],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_clips_made_another_way_are_not_taken(encoder, dataset, former, tmp_path, changes):
    """`recipe` is changed in the commits, as if they had been made so."""
    folder = tmp_path / "other"
    _copy_with_commits(former, folder, lambda made_with: made_with["recipe"].update(changes))
    tasks = tasks_of(dataset, tmp_path / "l", reuse=str(folder))
    formers = open_formers(str(folder), Store.open(str(tmp_path / "l")), encoder.recipe)
    reader = packs_of(encoder, dataset, formers).former
    for task in tasks:
        for clip in task.clips:
            assert reader.clip(task.takeover, clip["clip_id"]) is None
    texts = "device" not in changes and "version" not in changes
    assert (reader.text(tasks[0].takeover, "") is not None) == texts


@pytest.mark.parametrize(("role", "clips", "texts"), [("vae", False, True), ("clip", False, False)])
def test_other_weights_give_nothing_that_they_made(
    encoder, dataset, former, tmp_path, role, clips, texts
):
    folder = tmp_path / "other"
    _copy_with_commits(former, folder, lambda made_with: made_with["digests"].update({role: "x"}))
    task = tasks_of(dataset, tmp_path / "l", reuse=str(folder))[0]
    formers = open_formers(str(folder), Store.open(str(tmp_path / "l")), encoder.recipe)
    reader = packs_of(encoder, dataset, formers).former
    assert (reader.clip(task.takeover, task.clips[0]["clip_id"]) is not None) == clips
    assert (reader.text(task.takeover, "") is not None) == texts


def test_a_clip_with_other_bytes_is_not_taken(dataset, former, tmp_path):
    config = EncodeConfig(dataset=str(dataset), latents=str(tmp_path / "l"), reuse=str(former))
    request = prepare(config)
    clip = {**request.tasks[0].clips[0], "content_sha256": "0" * 64}
    assert request.former.takeover([clip]).clips == {}
    assert request.former.takeover([{**clip, "content_sha256": None}]).clips == {}


def test_a_damaged_former_pack_is_named_and_an_own_one_is_passed_over(
    encoder, dataset, former, tmp_path
):
    folder = tmp_path / "other"
    _copy_with_commits(former, folder, lambda made_with: None)
    for pack in (folder / "packs").iterdir():
        data = bytearray(pack.read_bytes())
        data[-1] ^= 1
        pack.write_bytes(data)
    named = tasks_of(dataset, tmp_path / "l", reuse=str(folder), pack_clips=1)[0]
    formers = open_formers(str(folder), Store.open(str(tmp_path / "l")), encoder.recipe)
    with pytest.raises(RequestError, match=r"--reuse .*pack-0000.* is damaged"):
        packs_of(encoder, dataset, formers).write(Store.open(str(tmp_path / "l")), named)
    own = Store.open(str(folder))
    task = tasks_of(dataset, folder, pack_clips=1)[0]
    formers = open_formers("", own, encoder.recipe)
    assert task.takeover.clips
    assert packs_of(encoder, dataset, formers).write(own, task).reused == 0


def test_reuse_of_what_is_not_there_is_refused(dataset, tmp_path):
    with pytest.raises(RequestError, match=r"--reuse .*: no latents there"):
        tasks_of(dataset, tmp_path / "l", reuse=str(tmp_path / "nothing"))


def _copy_with_commits(former, folder, change) -> None:
    for name in Store(str(former)).list_files():
        data = (former / name).read_bytes()
        if name.startswith("_work/"):
            commit = json.loads(data)
            change(commit["made_with"])
            data = json.dumps(commit).encode()
        Store(str(folder)).write_bytes(name, data)
