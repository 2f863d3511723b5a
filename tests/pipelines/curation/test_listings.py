"""How often a job that goes on lists folders: not more often the more there is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipelines.curation.commit_log import remove_left_overs
from pipelines.curation.prepared import work_of
from pipelines.storage import Store
from tests.benchmarks.scale_world import commit_all, config_of, write_footage

#: Prints what was listed and opened below a folder, in order, while what lies in it is curated.
CURATE = """
import json, os, sys
from pathlib import Path
folder, seen = sys.argv[1], []
def heard(event, arguments):
    if event in ("os.listdir", "os.scandir", "open") and arguments:
        named = isinstance(arguments[0], (str, bytes, os.PathLike))
        path = os.fsdecode(arguments[0]) if named else ""
        if path.startswith(folder):
            seen.append((event, path.removeprefix(folder).rstrip("/")))
sys.addaudithook(heard)
from pipelines.curation.curate import curate
from pipelines.curation.prepared import prepare
from tests.benchmarks.scale_world import config_of
curate(prepare(config_of(Path(folder))))
print(json.dumps(seen))
"""
ROOT = Path(__file__).resolve().parents[3]


def events_of_a_second_run(folder: Path, sources: int) -> list[tuple[str, str]]:
    """The first one started, had committed everything, and was killed."""
    write_footage(folder, sources)
    config = config_of(folder)
    store = Store.open(config.dataset)
    remove_left_overs(store, work_of(config, store).shared)
    commit_all(folder, sources, processes=1)
    done = subprocess.run(
        [sys.executable, "-c", CURATE, str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return [(event, path) for event, path in json.loads(done.stdout.splitlines()[-1])]


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[tuple[str, str]]]:
    return {n: events_of_a_second_run(tmp_path_factory.mktemp(f"of-{n}"), n) for n in (50, 200)}


def listed(events: list[tuple[str, str]]) -> list[str]:
    return [path for event, path in events if event != "open"]


def listed_at_the_start(events: list[tuple[str, str]]) -> list[str]:
    """Before the first commit is read."""
    first = next(i for i, (e, path) in enumerate(events) if e == "open" and "/watch/" in path)
    return listed(events[:first])


def test_the_start_lists_as_much_whatever_is_committed_and_nothing_twice(
    events: dict[int, list[tuple[str, str]]],
) -> None:
    few, many = (Counter(listed_at_the_start(events[n])) for n in (50, 200))
    assert few and max(few.values()) == 1 and max(many.values()) == 1, (few, many)
    assert abs(few.total() - many.total()) <= 2, (few, many)
    assert any("/watch/" in path for path in many) and any("/failures/" in path for path in many)


def test_each_source_costs_one_listing_of_its_captions_scores_and_removed_cuts(
    events: dict[int, list[tuple[str, str]]],
) -> None:
    few, many = (listed(events[n]) for n in (50, 200))
    for stage in ("captions", "scores", "cuts"):
        more = sum(f"/{stage}/" in path for path in many)
        assert more - sum(f"/{stage}/" in path for path in few) == 150, stage
    assert len(many) - len(few) == pytest.approx(3 * 150, abs=10)
