"""A job through a store that fails makes the bytes that it makes through one that does not."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.footage import write_world
from pipelines.storage import Store, object_store
from tests.chaos.checker import dataset_violations
from tests.conftest import Ended, run_job
from tests.servers.faulty_store import Faults, FaultyStore
from tests.servers.object_store import ObjectStore, environment_at
from tests.servers.objects_here import objects

__all__ = ["objects"]

pytestmark = pytest.mark.slow

FILMS = 4
SEED = 20
FAULTS = Faults(*([0.02] * 8))
#: They say where the dataset lies, and how long each stage took.
OF_THE_PLACE = ("origin.json", "report.html")


@pytest.fixture(scope="module")
def footage(objects: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    world, few = tmp_path_factory.mktemp("world"), tmp_path_factory.mktemp("few")
    write_world(world, preset="small", real_clips=False, broken=False)
    films = sorted((p for p in world.rglob("*.mp4")), key=lambda p: p.stat().st_size)
    for film in films[:FILMS]:
        shutil.copy(film, few / film.name)
    (few / "zero.mp4").touch()
    objects.put_folder(few, f"{objects.uri}/films")
    yield f"{objects.uri}/films"


def curate(footage: str, dataset: str, **environment: str) -> Ended:
    return run_job(
        *(
            "jobs/curate.py",
            "--footage",
            footage,
            "--dataset",
            dataset,
            "--work",
            f"{dataset}-work",
        ),
        *("--tracking.enabled", "false", "--cluster.num_cpus", "2"),
        timeout_s=600,
        **environment,
    )


def contents(uri: str) -> dict[str, bytes]:
    store = Store.open(uri)
    return {n: store.read_bytes(n) for n in store.list_files() if n not in OF_THE_PLACE}


def violations(uri: str, footage: str, folder: Path) -> list[str]:
    """What the checker finds in copies of both."""
    for place, name in ((uri, "set"), (footage, "films")):
        store = Store.open(place)
        for file in store.list_files():
            (folder / name / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / name / file).write_bytes(store.read_bytes(file))
    return dataset_violations(folder / "set", folder / "films")


def test_the_bytes_are_the_same_and_a_store_that_stays_away_is_one_line(
    objects: ObjectStore, footage: str, tmp_path: Path
) -> None:
    undisturbed, disturbed = f"{objects.uri}/quiet/set", f"{objects.uri}/faulty/set"
    quiet = curate(footage, undisturbed)
    assert quiet.code == 0, quiet.err[-3000:]
    assert violations(undisturbed, footage, tmp_path / "quiet") == []

    with FaultyStore(objects.endpoint, Faults(error_500=1.0), SEED) as faulty:
        away = curate(footage, disturbed, **environment_at(faulty.endpoint))
        lines = away.err.strip().splitlines()
        assert (away.code, away.out, len(lines)) == (1, "", 1), away.err[-3000:]
        assert "the store does not answer as it should" in lines[0]

        faulty.faults = FAULTS
        faulty.log.clear()
        patience = {object_store.READ_TIMEOUT_VARIABLE: "2"}
        ended = curate(footage, disturbed, **environment_at(faulty.endpoint), **patience)
        hit = faulty.injected
        print(f"seed {SEED}: faults {dict(hit)}")
        assert ended.code == 0, ended.err[-3000:]
    assert sum(hit.values()) > 10
    assert contents(disturbed) == contents(undisturbed)
    assert violations(disturbed, footage, tmp_path / "faulty") == []
