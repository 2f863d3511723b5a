"""Training straight from a dataset gives what its stored latents give."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipelines.config import RequestError
from pipelines.storage import Store
from pipelines.training.config import EncodeConfig, EncodersConfig, OnlineConfig
from pipelines.training.feed.feed import Feed
from pipelines.training.feed.plan import MixtureConfig
from pipelines.training.latents import online
from pipelines.training.latents.clip_encoder import ClipEncoder
from pipelines.training.latents.encode import header_of, settings_of
from pipelines.training.latents.encode_plan import pack_tasks
from pipelines.training.latents.on_disk import latents_digest, open_latents, publish
from pipelines.training.latents.online import is_dataset, open_latents_online, open_stored_or_online
from pipelines.training.latents.pack_encoder import PackEncoder
from pipelines.training.latents.packs import map_safetensors
from pipelines.training.latents.recipe import recipe_of
from pipelines.training.latents.reuse import FormerFeatures
from tests.pipelines.training.small_dataset import write_dataset
from tests.pipelines.training.synthetic_latents import write_latents
from tests.pipelines.training.tiny_jobs import base_request, train_here

MIXTURE = MixtureConfig(
    frames=(1, 8), frames_weights=(1.0, 3.0), fps=(8, 16), fps_weights=(1.0, 1.0),
    frames_per_step=16, max_clips_per_step=4,
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    torch.set_num_threads(1)
    return write_dataset(tmp_path_factory.mktemp("dataset") / "set")


def encoded(config: EncodeConfig, folder) -> str:
    """What `encode` writes, without Ray."""
    recipe, store = recipe_of(config), Store.open(str(folder))
    encoder = ClipEncoder(EncodersConfig(), recipe)
    packs = PackEncoder(encoder, config.dataset, FormerFeatures([], recipe, {}))
    tasks = pack_tasks(Store.open(config.dataset), recipe, config.pack_clips)
    commits = [packs.write(store, task).commit for task in tasks]
    header = header_of(
        recipe,
        {"uri": config.dataset, "digest": "d" * 32},
        digest=latents_digest([c.pack for c in commits], encoder.names, "d" * 32),
        encoders=encoder.names,
        shapes=(encoder.latent_shape, encoder.text_shape),
        counts=(5, 193),
        settings=settings_of(config),
    )
    publish(store, header, commits)
    return str(folder)


@pytest.mark.parametrize("latent", ["mean", "moments"])
def test_batches_are_those_of_stored_latents(dataset, tmp_path, latent):
    config = EncodeConfig(dataset=str(dataset), pack_clips=2, latent=latent)
    stored = open_latents(encoded(config, tmp_path / "l"), "base")
    straight = open_latents_online(config)
    assert straight.index.equals(stored.index)
    for name in stored.packs:
        written = map_safetensors(tmp_path / "l" / name)
        made = straight.in_memory.arrays(name)
        assert made.keys() == written.keys()
        for array, values in written.items():
            assert made[array].dtype == values.dtype
            np.testing.assert_array_equal(made[array], values)
    here = Feed(stored, MIXTURE, seed=1, tier="base")
    there = Feed(straight, MIXTURE, seed=1, tier="base")
    for a, b in zip(here.batches(0, 6), there.batches(0, 6), strict=True):
        assert a.samples == b.samples
        assert torch.equal(a.latents_BCFHW, b.latents_BCFHW)
        assert torch.equal(a.text_BLD, b.text_BLD)
        assert torch.equal(a.image_embedding_BD, b.image_embedding_BD)
        assert (a.latents_std_BCFHW is None) == (latent == "mean")
        if latent == "moments":
            assert torch.equal(a.latents_std_BCFHW, b.latents_std_BCFHW)


def test_a_header_names_dataset_and_encoders_and_its_digest_follows_them(dataset, tmp_path):
    config = EncodeConfig(dataset=str(dataset))
    header = open_latents_online(config).header
    assert header.dataset == {"uri": str(dataset), "digest": "d" * 32}
    assert (header.clips, header.frames, header.latent_shape) == (5, 193, (4, 16, 28))
    assert open_latents_online(config).header == header
    moments = EncodeConfig(dataset=str(dataset), latent="moments")
    assert open_latents_online(moments).header.digest != header.digest


def test_more_than_a_small_run_is_sent_to_encode(dataset, monkeypatch):
    config = EncodeConfig(dataset=str(dataset))
    monkeypatch.setattr(online, "MOST_CLIPS", 4)
    with pytest.raises(RequestError, match=r"5 clips are too many.*jobs/encode\.py"):
        open_latents_online(config)
    monkeypatch.setattr(online, "MOST_CLIPS", 5)
    monkeypatch.setattr(online, "MOST_BYTES", 10_000)
    with pytest.raises(RequestError, match=r"GiB of latents are too much.*jobs/encode\.py"):
        open_latents_online(config)


def test_a_clip_longer_than_its_times_is_named(tmp_path):
    folder = write_dataset(tmp_path / "set")
    store = Store(str(folder))
    clips = store.read_table("clips.parquet").to_pylist()
    clips[0]["end_s"] -= 1.0
    schema = store.read_table("clips.parquet").schema
    store.write_table("clips.parquet", pa.Table.from_pylist(clips, schema=schema))
    latents = open_latents_online(EncodeConfig(dataset=str(folder)))
    with pytest.raises(RequestError, match=f"clip {clips[0]['clip_id']} has 48 frames.*give 32"):
        for name in latents.packs:
            latents.in_memory.arrays(name)


def test_a_training_takes_either(dataset, tmp_path):
    stored = open_stored_or_online(str(write_latents(tmp_path / "l")), "base", OnlineConfig())
    assert stored.in_memory is None
    straight = open_stored_or_online(str(dataset), "refine", OnlineConfig())
    assert (straight.header.stage, straight.header.clips) == ("refine", 2)
    with pytest.raises(RequestError, match=r"no latents\.json there"):
        open_stored_or_online(str(tmp_path), "base", OnlineConfig())


def test_training_on_a_dataset_ends_as_training_on_its_latents(dataset, tmp_path):
    stored = encoded(EncodeConfig(dataset=str(dataset)), tmp_path / "l")
    for name, latents in (("stored", stored), ("straight", str(dataset))):
        request = base_request(latents, tmp_path / name, 2, validation_clips=0)
        assert train_here(request) == []
    weights = "step-00000002/unet/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "stored" / weights).read_bytes() == (
        tmp_path / "straight" / weights
    ).read_bytes()


def test_where_there_is_no_dataset(dataset, tmp_path):
    assert is_dataset(str(dataset))
    assert not is_dataset(str(tmp_path))
    with pytest.raises(RequestError, match=r"no dataset\.json there"):
        open_latents_online(EncodeConfig(dataset=str(tmp_path)))
