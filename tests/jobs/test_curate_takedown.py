"""What was taken down does not come back: not at other settings, not out of what was watched
before, not when the dataset that says so is deleted. With a real Ray, on three small films."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.curate import main
from jobs.takedown import main as takedown
from pipelines.cluster.connection import connect
from pipelines.config import ClusterConfig
from pipelines.curation.what_if import answer, read_question
from pipelines.lineage.manifest import Dataset, read_dataset
from pipelines.lineage.tombstones import TOMBSTONE_SCHEMA, TOMBSTONES_TABLE, Tombstones
from pipelines.lineage.wholeness import check_dataset
from pipelines.storage import Store
from tests.jobs.test_curate_reuse import FILMS, write_films

pytestmark = pytest.mark.slow

#: No hard cut is seen: borders lie elsewhere, and no second look for a cut drops what they hold.
OTHER_SHOTS = ("--watch.shots.min_change", "250", "--single_shot.min_single_shot", "0")
MADE_FROM_PICTURES = ("caption", "short_caption", "embedding", "phash", "clip_score", "aesthetic")
#: All that a clip is; its place in the shards and among the best depends on the others.
OF_ITSELF = (
    *("clip_id", "start_frame", "end_frame", "content_sha256", "caption", "short_caption"),
    *("embedding", "phash", "motion", "clip_score", "verdict", "reason"),
)


@dataclasses.dataclass(frozen=True)
class World:
    """Three films of two shots each, curated into `sets/first`; then `sets/down` says that the
    second shot of the first film, and all of the second film, were taken down."""

    root: Path
    first: Dataset
    gone_clip: dict[str, Any]
    gone_source: str

    def curated(self, dataset: str, *arguments: str) -> tuple[Dataset, dict[str, Any]]:
        return curated(self.root, dataset, *arguments)

    @property
    def down(self) -> Tombstones:
        span = (self.gone_clip["start_frame"], self.gone_clip["end_frame"])
        spans = {self.gone_clip["source_id"]: (span,)}
        return Tombstones(frozenset([self.gone_source]), frozenset(), spans)

    def is_down(self, row: dict[str, Any]) -> bool:
        frames = (row["start_frame"], row["end_frame"])
        return self.down.covers(row["clip_id"], row["source_id"], *frames)


def curated(root: Path, dataset: str, *arguments: str) -> tuple[Dataset, dict[str, Any]]:
    places = ["--footage", str(root / "films"), "--dataset", str(root / dataset)]
    result = main([*places, "--tracking.enabled", "false", *arguments])
    assert result is not None and check_dataset(str(root / dataset)) == []
    return read_dataset(str(root / dataset)), result


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    write_films(root / "films", FILMS)
    with connect(ClusterConfig(address="local", num_cpus=2)):
        first, _ = curated(root, "sets/first")
        names = {uri: row["source_id"] for row in first.sources.to_pylist() for uri in row["uris"]}
        clip = next(
            row
            for row in first.clips.to_pylist()
            if row["source_id"] == names["film-0.mp4"] and row["start_frame"] > 0
        )
        assert clip["verdict"] == "kept"
        frames = {name: clip[name] for name in ("source_id", "clip_id", "start_frame", "end_frame")}
        rows = [{**frames, "from_digest": first.digest}]
        rows += [{"source_id": names["film-1.mp4"], "from_digest": first.digest}]
        store = Store(str(root / "sets" / "down"))
        store.write_table(TOMBSTONES_TABLE, pa.Table.from_pylist(rows, schema=TOMBSTONE_SCHEMA))
        yield World(root, first, clip, names["film-1.mp4"])


@pytest.fixture(scope="module")
def same(world: World) -> tuple[Dataset, dict[str, Any]]:
    """The same settings again, when everything lies in the work folder."""
    return world.curated("sets/same")


def of_itself(dataset: Dataset) -> list[dict[str, Any]]:
    return dataset.clips.select(list(OF_ITSELF)).to_pylist()


def assert_down(world: World, dataset: Dataset) -> None:
    """Nothing of what was taken down is in the dataset, and it says why."""
    rows = [row for row in dataset.clips.to_pylist() if world.is_down(row)]
    assert rows and {(r["verdict"], r["reason_stage"], r["reason"]) for r in rows} == {
        ("dropped", "takedown", "taken_down")
    }
    assert {row[name] for row in rows for name in MADE_FROM_PICTURES} == {None}
    assert world.gone_source not in dataset.clips["source_id"].to_pylist()
    sources = {row["source_id"]: row for row in dataset.sources.to_pylist()}
    gone = sources[world.gone_source]
    assert (gone["status"], gone["reason"], gone["uris"]) == (
        "failed",
        "taken_down",
        ["film-1.mp4"],
    )
    said = dataset.manifest["tombstones"]
    assert (said["sources"], said["clips"], len(said["digest"])) == (1, 1, 32)
    assert dataset.tombstones is not None and dataset.tombstones.num_rows == 2


def test_at_other_shot_settings_nothing_of_the_span_comes_back_and_all_else_does(
    world: World,
) -> None:
    again, result = world.curated("sets/again", *OTHER_SHOTS)
    alone, _ = world.curated("alone/again", *OTHER_SHOTS)  # knows of no takedown
    assert_down(world, again)
    assert result["done"]["watched"] == 2  # the film that went as a whole is not opened
    before = [row for row in of_itself(alone) if row["verdict"] == "kept"]
    after = [row for row in of_itself(again) if row["verdict"] == "kept"]
    down = {row["clip_id"] for row in alone.clips.to_pylist() if world.is_down(row)}
    assert len(before) > len(after) > 0 and world.gone_clip["clip_id"] not in down
    assert after == [row for row in before if row["clip_id"] not in down]  # over-deletion 1.0
    assert alone.manifest.get("tombstones") is None and alone.tombstones is None
    assert not (world.root / "alone/again" / TOMBSTONES_TABLE).exists()
    for folder in ("captions", "scores"):  # made only where nothing was taken down
        made = Store(str(world.root / "sets/_work" / folder))
        ids = {i for n in made.list_files() for i in made.read_table(n)["clip_id"].to_pylist()}
        assert not ids & down and ids >= {row["clip_id"] for row in after}


def test_out_of_what_was_watched_before_it_does_not_come_back_either(
    world: World, same: tuple[Dataset, dict[str, Any]]
) -> None:
    dataset, result = same
    assert_down(world, dataset)
    assert result["done"]["watched"] == result["done"]["captioned"] == result["done"]["cut"] == 0
    down = {row["clip_id"] for row in world.first.clips.to_pylist() if world.is_down(row)}
    assert len(down) == 3
    left = [row for row in of_itself(world.first) if row["clip_id"] not in down]
    assert [row for row in of_itself(dataset) if row["clip_id"] not in down] == left
    report = (world.root / "sets/same/report.html").read_text()
    assert "Not taken down" in report and "no frame was sampled" in report


def test_what_if_leaves_it_out_as_the_next_curation_does(
    world: World, same: tuple[Dataset, dict[str, Any]]
) -> None:
    found = answer(read_question(["--dataset", world.first.uri]))
    predicted = {c.clip_id: (c.verdict, c.reason) for c in found.then}
    rows = same[0].clips.to_pylist()
    assert {row["clip_id"]: (row["verdict"], row["reason"]) for row in rows} == {
        i: told for i, told in predicted.items() if i in {row["clip_id"] for row in rows}
    }
    assert set(predicted.values()) - {("kept", None)} == {("dropped", "taken_down")}
    assert found.notes == ["3 clips were taken down since: a curation would leave them out"]
    of_same = answer(read_question(["--dataset", same[0].uri]))
    assert of_same.notes == [] and of_same.now == of_same.then


def test_a_takedown_that_tracking_knows_is_honoured_wherever_it_was_written(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the real job, into a place that no folder of the next curation leads to."""
    tracking = ("--tracking.uri", f"sqlite:///{world.root}/mlflow.db")
    listed = world.root / "remove.txt"
    listed.write_text("film-2.mp4\n")
    out = world.root / "vault" / "down"
    request = ["--dataset", world.first.uri, "--list", str(listed), "--out", str(out)]
    taken = takedown([*request, *tracking])
    assert taken is not None and taken["removed"] == 2
    work = ("--work", str(world.root / "sets/_work"))
    dataset, result = world.curated("aside/set", *work, "--tracking.enabled", "true", *tracking)
    reasons = {r["uris"][0]: r["reason"] for r in dataset.sources.to_pylist()}
    assert reasons["film-2.mp4"] == reasons["film-1.mp4"] == "taken_down"
    assert (result["kept"], result["done"]["watched"]) == (1, 0)
    shutil.rmtree(out)
    shutil.rmtree(world.root / "sets/_work/tombstones")
    shutil.rmtree(world.root / "aside")
    capsys.readouterr()
    dataset, _ = world.curated("later/set", *work, "--tracking.enabled", "true", *tracking)
    reasons = {r["uris"][0]: r["reason"] for r in dataset.sources.to_pylist()}
    assert reasons["film-2.mp4"] is None  # nobody knows what it was any more, and that is said
    assert f"{out} is gone or unfinished" in capsys.readouterr().err


def test_the_chain_outlives_the_dataset_that_took_it_down(
    world: World, same: tuple[Dataset, dict[str, Any]]
) -> None:
    """It is in every dataset that was made since, and in the work folder."""
    for name in ("down", "again", "same", "first"):
        shutil.rmtree(world.root / "sets" / name, ignore_errors=True)
    dataset, _ = world.curated("sets/last")
    assert_down(world, dataset)
    assert dataset.manifest["digest"] == same[0].digest
    assert dataset.manifest["tombstones"] == same[0].manifest["tombstones"]
    elsewhere, _ = world.curated("away/last", "--tombstones", dataset.uri)
    assert_down(world, elsewhere)
    assert elsewhere.digest == dataset.digest
