from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest

from pipelines.cluster.connection import connect
from pipelines.config import ClusterConfig, RequestError
from pipelines.training.latents import pack_check
from pipelines.training.latents.on_disk import open_latents
from tests.chaos.damage import KINDS, damaged
from tests.pipelines.training.synthetic_latents import write_latents


@pytest.fixture
def latents(tmp_path):
    return open_latents(str(write_latents(tmp_path / "l", clips_per_pack=1)), "base")


def refuse_any_damage(latents):
    pack_check.check_packs(latents)
    for kind in KINDS:
        name = list(latents.packs)[17]
        path = latents.store.path(name)
        with (
            damaged(Path(path), random.Random(0), kind),
            pytest.raises(RequestError, match=rf"--latents .*{name}: damaged.*encode again"),
        ):
            pack_check.check_packs(latents)
    latents.store.remove(name)
    with pytest.raises(RequestError, match=rf"{name}: missing"):
        pack_check.check_packs(latents)


def test_a_damaged_pack_is_named(latents):
    refuse_any_damage(latents)


def test_a_damaged_pack_is_named_where_the_cluster_reads_them(latents, monkeypatch):
    monkeypatch.setattr(pack_check, "CHECKED_HERE_BYTES", 0)
    with connect(ClusterConfig(address="local", num_cpus=1)):
        refuse_any_damage(latents)


def test_packs_that_are_made_on_the_way_have_no_hash_to_compare_with(latents):
    class Nothing:
        pass

    in_memory = dataclasses.replace(latents, in_memory=Nothing())
    latents.store.remove(next(iter(latents.packs)))
    pack_check.check_packs(in_memory)
