import numpy as np
import pytest
import torch

from pipelines.config import RequestError
from pipelines.storage import Store
from pipelines.training.feed import Feed
from pipelines.training.latents import open_latents
from pipelines.training.packs import DamagedPack, map_safetensors
from pipelines.training.plan import MixtureConfig
from tests.pipelines.training.synthetic_latents import write_latents

MIXTURE = MixtureConfig(
    frames=(1, 4, 8),
    frames_weights=(1.0, 1.0, 3.0),
    fps=(4, 8, 16),
    fps_weights=(1.0, 2.0, 1.0),
    frames_per_step=16,
    max_clips_per_step=8,
)


def open_feed(folder, stage="base", **options):
    given = {"seed": 3, "tier": "base", **options}
    return Feed(open_latents(str(folder), stage), MIXTURE, **given)


def test_a_batch_holds_the_frames_that_were_encoded(tmp_path):
    feed = open_feed(write_latents(tmp_path / "l"))
    index = {row["clip_id"]: row for row in feed.latents.index.to_pylist()}
    for step in range(12):
        batch = feed.read(step)
        assert batch.latents_BCFHW.dtype == torch.float32
        for number, sample in enumerate(batch.samples):
            row = index[sample.clip_id]
            stored = map_safetensors(tmp_path / "l" / row["pack"])
            rows = row["first_row"] + sample.start + np.arange(sample.num_frames) * sample.stride
            assert rows[-1] < row["first_row"] + row["num_frames"]
            expected_FCHW = stored["latents_NCHW"][rows].astype(np.float32)
            shown_FCHW = batch.latents_BCFHW[number].transpose(0, 1).numpy()
            np.testing.assert_array_equal(shown_FCHW, expected_FCHW)
            np.testing.assert_array_equal(
                batch.image_embedding_BD[number].numpy(),
                stored["image_embeddings_ND"][rows[0]].astype(np.float32),
            )
            np.testing.assert_array_equal(
                batch.text_BLD[number].numpy(),
                stored["text_KLD"][row["text_row"]].astype(np.float32),
            )
            assert batch.fps_B[number] == 16 / sample.stride


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_workers_share_an_epoch_without_loss_or_repetition(tmp_path, world):
    feed = open_feed(write_latents(tmp_path / "l"))
    seen = []
    step = 0
    while feed.plan.position(step)[0] == 0:
        batches = [feed.read(step, rank, world) for rank in range(world)]
        assert sum(batch.share for batch in batches) == pytest.approx(1.0)
        seen += [s.clip_id for batch in batches if batch.share > 0 for s in batch.samples]
        assert all(len(batch.samples) > 0 for batch in batches)
        step += 1
    assert sorted(seen) == sorted(feed.latents.index["clip_id"].to_pylist())


def test_reading_ahead_gives_the_same_batches(tmp_path):
    feed = open_feed(write_latents(tmp_path / "l"))
    for batch in feed.batches(5, 15):
        direct = feed.read(batch.step)
        assert batch.samples == direct.samples
        assert torch.equal(batch.latents_BCFHW, direct.latents_BCFHW)
    assert list(feed.batches(3, 3)) == []


def test_held_out_clips_are_never_trained_on(tmp_path):
    feed = open_feed(write_latents(tmp_path / "l", lengths=[33] * 40), validation_clips=3)
    held = {feed.rows.clip_ids[row] for row in feed.validation_rows}
    trained = {s.clip_id for step in range(60) for s in feed.samples(step)[1]}
    assert len(held) == 3
    assert len(trained) == 37
    assert not held & trained


def test_refinement_has_no_image_embeddings_and_reads_short_captions(tmp_path):
    folder = write_latents(tmp_path / "l", "refine")
    feed = open_feed(folder, "refine", tier="premium", text="short_text")
    batch = feed.read(0)
    assert batch.image_embedding_BD is None
    tiers = {row["clip_id"]: row["tiers"] for row in feed.latents.index.to_pylist()}
    assert all("premium" in tiers[s.clip_id] for step in range(9) for s in feed.samples(step)[1])


def test_a_flipped_byte_in_a_pack_is_named(tmp_path):
    folder = write_latents(tmp_path / "l")
    pack = folder / "packs" / "pack-00001.safetensors"
    data = bytearray(pack.read_bytes())
    data[-100] ^= 1
    pack.write_bytes(data)
    feed = open_feed(folder)
    with pytest.raises(DamagedPack, match=r"pack-00001\.safetensors is damaged"):
        for step in range(20):
            feed.read(step)


def test_wrong_latents_are_refused_in_one_line(tmp_path):
    folder = write_latents(tmp_path / "l")
    with pytest.raises(RequestError, match="latents of the base stage"):
        open_latents(str(folder), "refine")
    with pytest.raises(RequestError, match=r"no latents\.json there"):
        open_latents(str(tmp_path / "nothing"), "base")
    (folder / "latents.json").write_text("{")
    with pytest.raises(RequestError, match="not readable as latents"):
        open_latents(str(folder), "base")


def test_no_clip_of_a_tier_is_refused(tmp_path):
    folder = write_latents(tmp_path / "l")
    with pytest.raises(RequestError, match="no clip to train on"):
        open_feed(folder, tier="nothing like it")


def test_latents_in_an_object_store_read_the_same(tmp_path):
    """fsspec's memory filesystem stands for an object store: copied once, verified, mapped."""
    folder = write_latents(tmp_path / "l")
    remote = Store.open("memory://latents-test")
    for name in Store(str(folder)).list_files():
        remote.write_bytes(name, (folder / name).read_bytes())
    here = open_feed(folder)
    there = Feed(open_latents(remote.uri, "base"), MIXTURE, seed=3, tier="base")
    for step in range(6):
        assert torch.equal(here.read(step).latents_BCFHW, there.read(step).latents_BCFHW)
    there.close()
