"""jobs/curate.py where footage and dataset lie at gs://, over Google's protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.footage import write_world
from pipelines.lineage.wholeness import check_dataset
from pipelines.storage import Store
from tests.conftest import run_job
from tests.servers.google_store import BUCKET, google_store
from tests.servers.object_store import set_in_this_process

pytestmark = pytest.mark.slow

FILMS = 2


def test_films_at_gs_become_a_whole_dataset_at_gs(tmp_path: Path) -> None:
    write_world(tmp_path / "world", preset="small", real_clips=False, broken=False)
    films = sorted((tmp_path / "world").rglob("*.mp4"), key=lambda p: p.stat().st_size)[:FILMS]
    with google_store(tmp_path) as address:
        place = {"STORAGE_EMULATOR_HOST": address}
        footage, dataset = f"gs://{BUCKET}/films", f"gs://{BUCKET}/set"
        with set_in_this_process(place):
            there = Store.open(footage)
            for film in films:
                there.write_bytes(f"a folder/{film.name}", film.read_bytes())
            there.write_bytes("empty.mp4", b"")
            ended = run_job(
                *("jobs/curate.py", "--footage", footage, "--dataset", dataset),
                *("--tracking.enabled", "false", "--cluster.address", "local"),
                **place,
            )
            assert ended.code == 0, ended.err[-3000:]
            assert check_dataset(dataset) == []
            sources = Store.open(dataset).read_table("sources.parquet").to_pylist()
    found = {uri: row["status"] for row in sources for uri in row["uris"]}
    assert found == {**{f"a folder/{film.name}": "ok" for film in films}, "empty.mp4": "failed"}
