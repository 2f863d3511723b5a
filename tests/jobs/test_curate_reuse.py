"""A new dataset beside an old one: only what is new is done, and the bytes are those of a start
from nothing. With a real Ray, on three small films."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.curate import main
from pipelines.cluster.connection import connect
from pipelines.config import ClusterConfig
from pipelines.curation.what_if import answer, read_question
from pipelines.lineage.manifest import read_dataset
from pipelines.lineage.wholeness import check_dataset
from pipelines.media import write_video
from pipelines.world.scenes import Scene, render_frames

pytestmark = pytest.mark.slow

TABLES = ("clips.parquet", "sources.parquet", "shards.parquet")
CONTRACT = {*TABLES, "dataset.json", "origin.json", "report.html", "shards"}
FILMS = (
    (Scene("circle", "red", "left", "textured", "still", 1), 50),
    (Scene("star", "green", "up", "gradient", "still", 2), 60),
    (Scene("cross", "yellow", "spin", "textured", "pan_left", 3), 70),
)
LONGER = ("--limits.min_duration_s", "2.2")


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    with connect(ClusterConfig(address="local", num_cpus=2)):
        yield


@dataclass(frozen=True)
class World:
    """`two` and `three` films; datasets beside one another in `sets`, and alone in `alone`."""

    root: Path

    def curated(self, films: str, dataset: str, *arguments: str) -> dict[str, Any]:
        places = ["--footage", str(self.root / films), "--dataset", str(self.root / dataset)]
        result = main([*places, "--tracking.enabled", "false", *arguments])
        assert result is not None
        return result


def write_films(folder: Path, films: Sequence[tuple[Scene, int]]) -> None:
    """Each film holds its scene, and a short and smaller-moving second one after a cut."""
    folder.mkdir()
    for number, (scene, frames) in enumerate(films):
        other = Scene("square", "purple", "right", "noise", "still", 9 + number)
        shots = [
            *render_frames(scene, frames, 320, 180, 25.0),
            *render_frames(other, 30, 320, 180, 25.0),
        ]
        write_video(folder / f"film-{number}.mp4", iter(shots), fps=25)


@pytest.fixture(scope="module")
def world(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("world")
    write_films(root / "two", FILMS[:2])
    write_films(root / "three", FILMS)
    return World(root)


@pytest.fixture(scope="module")
def first(world: World) -> dict[str, Any]:
    """Two films, watched from nothing."""
    return world.curated("two", "sets/first")


@pytest.fixture(scope="module")
def second(world: World, first: dict[str, Any]) -> dict[str, Any]:
    """A third film is added and a threshold lowered, beside the first dataset."""
    return world.curated("three", "sets/second", "--limits.min_duration_s", "0.8")


def test_only_the_added_film_is_watched(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert first["done"]["watched"] == 2 and first["done"]["taken"] == 0
    assert (second["done"]["watched"], second["done"]["reused"]) == (1, 2)
    assert second["done"]["taken"] == first["kept"] > 0
    assert second["done"]["cut"] == second["kept"] - first["kept"] > 0


def test_by_reuse_or_from_nothing_the_bytes_are_the_same(
    world: World, second: dict[str, Any]
) -> None:
    alone = world.curated("three", "alone/second", "--limits.min_duration_s", "0.8")
    assert alone["done"]["watched"] == 3 and alone["digest"] == second["digest"]
    one, other = (world.root / place for place in ("sets/second", "alone/second"))
    names = [f"shards/{p.name}" for p in sorted((one / "shards").iterdir())]
    for name in (*TABLES, "dataset.json", *names):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def test_a_complete_dataset_holds_its_own_files_and_nothing_else(
    world: World, second: dict[str, Any]
) -> None:
    assert {p.name for p in (world.root / "sets/second").iterdir()} == CONTRACT
    assert not list((world.root / "sets/_work").rglob("*.mp4"))  # no clip is kept twice


def test_what_if_says_what_then_comes_out(world: World, second: dict[str, Any]) -> None:
    """Also: without the earlier datasets it is only slower, and a named parent is written down."""
    uri = str(world.root / "sets/second")
    predicted = answer(read_question(["--dataset", uri, *LONGER])).then
    parent = read_dataset(uri).digest
    shutil.rmtree(world.root / "sets/first")
    for shard in (world.root / "sets/second/shards").iterdir():
        data = bytearray(shard.read_bytes())
        data[len(data) // 3] ^= 1  # in one of the clips; the others are still good
        shard.write_bytes(data)
    third = world.curated("three", "sets/third", *LONGER, "--parent", uri)
    found = read_dataset(str(world.root / "sets/third"))
    columns = ("clip_id", "verdict", "reason_stage", "reason", "tiers")
    assert found.clips.select(columns).to_pylist() == [
        {name: getattr(clip, name) for name in columns} for clip in predicted
    ]
    done = third["done"]
    assert done["watched"] == done["captioned"] == done["scored"] == 0
    assert done["cut"] + done["taken"] == third["kept"] > 0
    assert found.parent_digest == parent and check_dataset(found.uri) == []


def test_the_job_answers_what_if_in_one_line_of_json(
    world: World, second: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    result = main(["--what-if", "--dataset", str(world.root / "sets/second")])
    assert result is not None and json.loads(json.dumps(result))["digest"] == second["digest"]
    assert {k: result[k] for k in ("clips", "kept", "dropped")} == {
        k: second[k] for k in ("clips", "kept", "dropped")
    }
    assert result["what_if"]["kept"] == second["kept"] and result["what_if"]["notes"] == []
    assert "nothing changed" in capsys.readouterr().err
