"""Licence and consent, from a table, beside the films and inside them, in a whole curation with a
real Ray: who is refused is never watched, and who is not is counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.curate import main
from pipelines.cluster.connection import connect
from pipelines.config import ClusterConfig, RequestError
from pipelines.curation.what_if import answer, read_question
from pipelines.lineage.manifest import Dataset, read_dataset
from pipelines.storage import Store
from tests.jobs.test_curate_reuse import FILMS, write_films
from tests.pipelines.curation.rights.signed_media import sign

pytestmark = pytest.mark.slow

C2PA_NO = "no (c2pa.ai_generative_training: notAllowed)"


@dataclass(frozen=True)
class World:
    """`film-0` with a licence and a yes beside it, `film-1` with nothing, `film-2` and a copy of
    it elsewhere that is under another licence, and `signed.mp4` whose manifest refuses."""

    root: Path

    def curated(self, dataset: str, *arguments: str) -> tuple[Dataset, dict[str, Any]]:
        places = ["--footage", str(self.root / "films"), "--dataset", str(self.root / dataset)]
        result = main([*places, "--tracking.enabled", "false", *arguments])
        assert result is not None
        return read_dataset(str(self.root / dataset)), result

    def table(self, *lines: str) -> tuple[str, str]:
        path = self.root / "rights.csv"
        path.write_text("\n".join(["file,license,consent,note", *lines, ""]))
        return "--rights", str(path)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("world")
    films = root / "films"
    write_films(films, FILMS)
    (films / "film-0.mp4.json").write_text(json.dumps({"license": "CC-BY-4.0", "consent": True}))
    (films / "film-2.json").write_text(json.dumps({"license": "CC0-1.0"}))
    (films / "a copy").mkdir()
    shutil.copy(films / "film-2.mp4", films / "a copy" / "other.mp4")
    (films / "a copy" / "other.json").write_text(json.dumps({"license": "CC-BY-NC-4.0"}))
    sign(films / "film-1.mp4", films / "signed.mp4", {"c2pa.ai_generative_training": "notAllowed"})
    with connect(ClusterConfig(address="local", num_cpus=2)):
        yield World(root)


@pytest.fixture(scope="module")
def first(world: World) -> tuple[Dataset, dict[str, Any]]:
    return world.curated("sets/first")


def rights_of(dataset: Dataset) -> dict[str, tuple[str | None, ...]]:
    """(license, consent, reason) of each source by its first name."""
    columns = ("license", "consent", "reason")
    return {r["uris"][0]: tuple(r[c] for c in columns) for r in dataset.sources.to_pylist()}


def test_what_is_stated_is_on_every_source_and_clip(first: tuple[Dataset, dict[str, Any]]) -> None:
    dataset, _ = first
    found = {name: r for name, r in rights_of(dataset).items() if name.endswith(".mp4")}
    assert found == {
        "film-0.mp4": ("CC-BY-4.0", "yes", None),
        "film-1.mp4": (None, None, None),
        "a copy/other.mp4": ("CC-BY-NC-4.0", None, None),  # the strictest of its two names
        "signed.mp4": (None, C2PA_NO, "licence_refused"),
    }
    sources = {r["source_id"]: r for r in dataset.sources.to_pylist()}
    clips = dataset.clips.to_pylist()
    assert len(clips) == 6
    for clip in clips:
        source = sources[clip["source_id"]]
        assert (clip["license"], clip["consent"]) == (source["license"], source["consent"])


def test_a_refused_file_is_never_watched(
    world: World, first: tuple[Dataset, dict[str, Any]]
) -> None:
    dataset, result = first
    refused = next(r for r in dataset.sources.to_pylist() if r["reason"] == "licence_refused")
    assert refused["codec"] is None and result["done"]["watched"] == 3
    seen = Store(str(world.root / "sets" / "_work")).list_files()
    assert seen and not any(refused["source_id"] in name for name in seen)


def test_counts_and_report_are_by_licence(
    world: World, first: tuple[Dataset, dict[str, Any]]
) -> None:
    counts = first[0].manifest["counts"]
    assert counts["licenses"] == {"CC-BY-4.0": 2, "CC-BY-NC-4.0": 2, "not stated": 2}
    assert counts["consent"] == {"not stated": 4, "yes": 2}
    assert counts["source_reasons"]["licence_refused"] == 1
    page = (world.root / "sets/first/report.html").read_text()
    rows = page.partition("<h2>Licences</h2>")[2].partition("</table>")[0]
    assert "<td>CC-BY-NC-4.0</td>" in rows and "<td>not stated</td>" in rows


def test_a_policy_and_a_table_are_new_verdicts_on_what_was_watched(
    world: World, first: tuple[Dataset, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The table licenses film-1 and withdraws film-0; what is not commercial is refused."""
    given = world.table("film-1.mp4,CC0-1.0,yes,", "film-0*,,no,by mail", "gone.mp4,X,,")
    policy = ("--limits.licenses", "CC0-*,CC-BY-*", "--limits.refused_licenses", "*-NC-*")
    main(["--footage", str(world.root / "films"), "--dataset", str(world.root / "sets/none"),
          *given, *policy, "--dry-run"])  # fmt: skip
    planned = capsys.readouterr().err
    assert "CC0-1.0 2" in planned and "refused 3" in planned and "line 4 gone.mp4" in planned
    dataset, result = world.curated("sets/second", *given, *policy)
    said = capsys.readouterr().err
    assert "WARNING: no file is named by line 4 gone.mp4" in said and "refused 3" in said
    assert {n: r for n, r in rights_of(dataset).items() if n.endswith(".mp4")} == {
        "film-0.mp4": ("CC-BY-4.0", "no", "licence_refused"),
        "film-1.mp4": ("CC0-1.0", "yes", None),
        "a copy/other.mp4": ("CC-BY-NC-4.0", None, "licence_refused"),
        "signed.mp4": (None, C2PA_NO, "licence_refused"),
    }
    assert dataset.manifest["counts"]["licenses"] == {"CC0-1.0": 2}
    assert (result["done"]["watched"], result["done"]["captioned"]) == (0, 0)
    assert "rights.csv" not in json.dumps(dataset.manifest)  # equal wherever the table lies
    loose = ["--dataset", dataset.uri, "--limits.refused_licenses", "none"]
    notes = answer(read_question(loose)).notes
    assert any("3 files were refused for their rights" in note for note in notes)


def test_refusals_that_are_not_honoured_are_still_written_down(
    world: World, first: tuple[Dataset, dict[str, Any]]
) -> None:
    dataset, result = world.curated("sets/third", "--limits.honour_refusals", "false")
    assert rights_of(dataset)["signed.mp4"] == (None, C2PA_NO, None)
    assert result["done"]["watched"] == 1
    assert C2PA_NO in {row["consent"] for row in dataset.clips.to_pylist()}


def test_a_wrong_table_ends_the_job_before_anything_starts(world: World) -> None:
    (world.root / "rights.csv").write_text("file,licence\n")
    with pytest.raises(RequestError, match="no column licence; did you mean license"):
        world.curated("sets/wrong", "--rights", str(world.root / "rights.csv"))
    assert not (world.root / "sets/wrong").exists()
