"""Encoding through real Ray Data."""

import pytest

from pipelines.config import RequestError, TrackingConfig
from pipelines.training.config import EncodeConfig
from pipelines.training.encode import encode, prepare
from pipelines.training.feed import Feed
from pipelines.training.latents import open_latents
from pipelines.training.stages import demo_base
from tests.pipelines.training.small_dataset import write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("dataset") / "set")


def config(dataset, latents, **changes) -> EncodeConfig:
    tracking = TrackingConfig(enabled=False)
    return EncodeConfig(dataset=str(dataset), latents=str(latents), tracking=tracking, **changes)


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_dataset_becomes_latents_that_can_be_trained_on(dataset, tmp_path):
    result = encode(prepare(config(dataset, tmp_path / "one")))
    assert result["clips"] == 5
    latents = open_latents(result["latents"], "base")
    assert latents.header.digest == result["digest"]
    assert latents.header.dataset["digest"] == "d" * 32
    feed = Feed(latents, demo_base().mixture, seed=0, tier="base")
    assert len({s.clip_id for step in range(20) for s in feed.samples(step)[1]}) == 5
    assert feed.read(0).latents_BCFHW.shape[-2:] == (16, 28)

    with pytest.raises(RequestError, match="already complete"):
        prepare(config(dataset, tmp_path / "one"))

    # As after an interruption: one pack committed, its neighbour and latents.json not.
    for name in ("latents.json", "_work/pack-00001.json"):
        (tmp_path / "one" / name).unlink()
    kept = (tmp_path / "one" / "packs" / "pack-00000.safetensors").stat().st_mtime_ns
    again = encode(prepare(config(dataset, tmp_path / "one")))
    assert again["digest"] == result["digest"]
    assert (tmp_path / "one" / "packs" / "pack-00000.safetensors").stat().st_mtime_ns == kept


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_damaged_shard_ends_the_job_in_one_line(dataset, tmp_path):
    damaged = write_dataset(tmp_path / "set")
    shard = damaged / "shards" / "shard-00001.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    with pytest.raises(RequestError, match=r"shard-00001\.tar: damaged"):
        encode(prepare(config(damaged, tmp_path / "latents")))
    assert not (tmp_path / "latents" / "latents.json").exists()


def test_a_missing_or_unfinished_dataset_is_refused(dataset, tmp_path):
    with pytest.raises(RequestError, match=r"no dataset\.json there"):
        prepare(config(tmp_path / "nothing", tmp_path / "latents"))
