import dataclasses

import numpy as np
import pytest
import torch

from pipelines.config import RequestError
from pipelines.storage import Store
from pipelines.training.feed.feed import Feed
from pipelines.training.feed.plan import MixtureConfig
from pipelines.training.latents.on_disk import open_latents
from pipelines.training.latents.packs import DamagedPack, PackReader, map_safetensors
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
    held = {feed.rows.clip_id(row) for row in feed.validation_rows}
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


def in_memory_store(folder, name: str) -> Store:
    """fsspec's memory filesystem stands for an object store."""
    remote = Store.open(f"memory://{name}")
    for file in Store(str(folder)).list_files():
        remote.write_bytes(file, (folder / file).read_bytes())
    return remote


def test_latents_in_an_object_store_read_the_same(tmp_path):
    """Copied once, verified, mapped."""
    folder = write_latents(tmp_path / "l")
    remote = in_memory_store(folder, "latents-test")
    here = open_feed(folder)
    there = Feed(open_latents(remote.uri, "base"), MIXTURE, seed=3, tier="base")
    for step in range(6):
        assert torch.equal(here.read(step).latents_BCFHW, there.read(step).latents_BCFHW)
    there.close()


def test_moments_come_with_their_standard_deviation(tmp_path):
    feed = open_feed(write_latents(tmp_path / "l", latent="moments"))
    assert feed.latents.header.latent == "moments"
    index = {row["clip_id"]: row for row in feed.latents.index.to_pylist()}
    batch = feed.read(3)
    for number, sample in enumerate(batch.samples):
        row = index[sample.clip_id]
        stored = map_safetensors(tmp_path / "l" / row["pack"])
        rows = row["first_row"] + sample.start + np.arange(sample.num_frames) * sample.stride
        shown_FCHW = batch.latents_std_BCFHW[number].transpose(0, 1).numpy()
        np.testing.assert_array_equal(
            shown_FCHW, stored["latents_std_NCHW"][rows].astype(np.float32)
        )
    plain = open_feed(write_latents(tmp_path / "plain")).read(3)
    assert plain.latents_std_BCFHW is None


def test_batches_are_laid_out_for_the_network_and_belong_to_nobody_else(tmp_path):
    folder = write_latents(tmp_path / "l")
    before = {p.name: p.read_bytes() for p in (folder / "packs").iterdir()}
    feed = open_feed(folder)
    first, again = feed.read(2), feed.read(2)
    assert first.latents_BCFHW.is_contiguous()
    first.latents_BCFHW.zero_()
    first.text_BLD.zero_()
    assert again.latents_BCFHW.abs().max() > 0
    assert torch.equal(feed.read(2).text_BLD, again.text_BLD)
    assert before == {p.name: p.read_bytes() for p in (folder / "packs").iterdir()}


def test_samples_do_not_depend_on_the_order_of_the_index(tmp_path):
    folder = write_latents(tmp_path / "l")
    latents = open_latents(str(folder), "base")
    mixed = np.random.default_rng(0).permutation(len(latents.index))
    other = dataclasses.replace(latents, index=latents.index.take(mixed))
    feeds = [Feed(one, MIXTURE, seed=3, tier="base") for one in (latents, other)]
    for step in range(12):
        assert feeds[0].samples(step) == feeds[1].samples(step)


def test_latents_of_the_first_schema_are_still_read(tmp_path):
    """Before clips could be taken over: no recipe in the header, no content hash in the index."""
    folder = write_latents(tmp_path / "l")
    expected = open_feed(folder).read(0)
    store = Store(str(folder))
    header = store.read_json("latents.json")
    for later in ("recipe", "files", "seal"):
        del header[later]
    store.write_json("latents.json", {**header, "schema_version": 1})
    store.write_table("index.parquet", store.read_table("index.parquet").drop("content_sha256"))
    feed = open_feed(folder)
    assert feed.latents.header.latent == "mean"
    assert torch.equal(feed.read(0).latents_BCFHW, expected.latents_BCFHW)
    store.write_json("latents.json", {**header, "schema_version": 3})
    with pytest.raises(RequestError, match="schema version 3"):
        open_latents(str(folder), "base")


# --- packs ---------------------------------------------------------------------------------


def many_packs(folder, name: str) -> tuple[Store, dict]:
    written = write_latents(folder, lengths=[9] * 24, clips_per_pack=2)
    return in_memory_store(written, name), open_latents(str(written), "base").packs


def test_packs_longest_unused_are_let_go_and_their_copies_with_them(tmp_path):
    store, packs = many_packs(tmp_path / "l", "bounded")
    names = sorted(packs)
    with PackReader(store, packs, most_open=3) as reader:
        held = reader.arrays(names[0])
        for name in names[1:3]:
            reader.arrays(name)
        reader.arrays(names[0])
        reader.arrays(names[3])
        assert reader.open_packs == [names[2], names[0], names[3]]
        copies = reader._cache
        for name in names:
            reader.arrays(name)
        assert len(list(copies.iterdir())) == 3
        # Who still holds arrays of a pack that was let go reads on.
        np.testing.assert_array_equal(
            held["latents_NCHW"], map_safetensors(tmp_path / "l" / names[0])["latents_NCHW"]
        )
    assert not copies.exists()


def test_announced_packs_are_there_before_they_are_asked_for(tmp_path):
    store, packs = many_packs(tmp_path / "l", "announced")
    names = sorted(packs)
    with PackReader(store, packs) as reader:
        reader.prepare(names[:5])
        for name in names[:5]:
            reader.arrays(name)  # waits for the background where it is not done yet
        for name in names[:5]:
            store.remove(name)
        reader.arrays(names[4])
        with pytest.raises(FileNotFoundError):
            store.read_bytes(names[4])
        # What is wrong is said when the pack is asked for, and again when it is asked for again.
        store.remove(names[6])
        reader.prepare([names[6]])
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                reader.arrays(names[6])


def test_a_pack_that_changes_on_disk_is_verified_again(tmp_path):
    folder = write_latents(tmp_path / "l")
    latents = open_latents(str(folder), "base")
    name, other = sorted(latents.packs)[:2]
    with PackReader(latents.store, latents.packs, most_open=1) as reader:
        reader.arrays(name)
        reader.arrays(other)
        data = bytearray((folder / name).read_bytes())
        data[-1] ^= 1
        latents.store.write_bytes(name, bytes(data))
        with pytest.raises(DamagedPack, match="is damaged"):
            reader.arrays(name)


def test_a_feed_keeps_few_packs_open_over_many_epochs(tmp_path):
    written = write_latents(tmp_path / "l", lengths=[33] * 60, clips_per_pack=2)
    mixture = dataclasses.replace(MIXTURE, packs_per_block=2)
    feed = Feed(open_latents(str(written), "base"), mixture, seed=0, tier="base")
    seen = set()
    for batch in feed.batches(0, 3 * feed.plan.batch(0)[1].num_batches):
        seen |= {feed.rows.pack(sample.row) for sample in batch.samples}
        # Three blocks of two packs, and what two reading threads wait for.
        assert len(feed.packs.open_packs) <= 6 + 2
    assert len(seen) == 30
    feed.close()


def test_what_is_written_over_a_mapped_pack_never_reaches_the_file(tmp_path):
    pack = next((write_latents(tmp_path / "l") / "packs").iterdir())
    before = pack.read_bytes()
    map_safetensors(pack)["latents_NCHW"][:] = 0
    assert pack.read_bytes() == before
