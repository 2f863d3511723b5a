"""The driver's own work at a million tiny sources: seconds, memory, files, by size.

    python tests/benchmarks/million_sources.py --sources 1000,10000,100000

What workers would have found is made up (scale_world.py). Up to --commits-up-to sources it is
committed source by source, as workers do it, and the driver finds it; beyond, parts of judged clips
are written as workers write them, without the commits (a dozen files for each source). Then a
driver, in a process of its own and without Ray, curates: it lists, identifies, judges, finds
duplicates, plans and writes shards, tables, manifest and report.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import psutil

from pipelines.curation import curate as curating
from pipelines.curation import keep
from pipelines.curation.graph_run import GraphRun
from pipelines.curation.parts import Parts
from pipelines.curation.prepared import prepare
from tests.benchmarks.scale_world import commit_all, config_of, judge_made_up, write_footage

SAMPLE_S = 0.05
LISTINGS = ("os.listdir", "os.scandir")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sources", default="1000,10000")
    parser.add_argument("--commits-up-to", type=int, default=4000)
    parser.add_argument("--folder", default="", help="where the worlds are made")
    parser.add_argument("--out", default="", help="write the figures here, as JSON")
    parser.add_argument("--drive", default="", help="curate the world in this folder")
    parser.add_argument("--make-up", action="store_true", help="there are no commits")
    given = parser.parse_args()
    if given.drive:
        print(json.dumps(driven(Path(given.drive), given.make_up)))
        return
    rows = []
    for count in (int(text) for text in given.sources.split(",")):
        rows.append(measured(count, given.folder, with_commits=count <= given.commits_up_to))
        print(json.dumps(rows[-1]), flush=True)
        if given.out:
            Path(given.out).write_text(json.dumps(rows, indent=1) + "\n")


def measured(count: int, parent: str, with_commits: bool) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="scale-", dir=parent or None))
    try:
        started_s = time.monotonic()
        write_footage(folder, count)
        if with_commits:
            commit_all(folder, count)
        made_s = round(time.monotonic() - started_s, 1)
        command = [sys.executable, __file__, "--drive", str(folder)]
        command += [] if with_commits else ["--make-up"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        figures = json.loads(done.stdout.splitlines()[-1])
        return {"sources": count, "commits": with_commits, "made_s": made_s, **figures}
    finally:
        shutil.rmtree(folder)


def driven(folder: Path, make_up: bool) -> dict[str, Any]:
    """One curation in this process, watched from inside."""
    if make_up:
        curating.watch_and_describe = lambda run, footage: Parts(footage)
        keep.judge_part = judge_made_up
    events: Counter[str] = Counter()
    sys.addaudithook(lambda event, arguments: events.update((event,)))
    config = config_of(folder)
    process, over = psutil.Process(), threading.Event()
    peaks: Counter[str] = Counter()  # bytes, by stage
    at_work = noted_stages()

    def sample() -> None:
        while not over.wait(SAMPLE_S):
            peaks[at_work[-1]] = max(peaks[at_work[-1]], process.memory_info().rss)

    before = process.memory_info().rss
    started_s, started_cpu_s = time.monotonic(), time.process_time()
    threading.Thread(target=sample, daemon=True).start()
    curated = curating.curate(prepare(config))
    over.set()
    return {
        "seconds": round(time.monotonic() - started_s, 1),
        "cpu_seconds": round(time.process_time() - started_cpu_s, 1),
        "stages": {t.title: round(t.seconds, 2) for t in curated.stage_times},
        "before_mib": before >> 20,
        "peak_mib": max(peaks.values()) >> 20,
        "peak_mib_by_stage": {stage: size >> 20 for stage, size in peaks.items()},
        "opened": events["open"],
        "listed": sum(events[name] for name in LISTINGS),
        "digest": curated.digest,
        "kept": curated.counts["kept"],
        "clips": curated.counts["clips"],
        "shards": curated.counts["shards"],
    }


def noted_stages() -> list[str]:
    """From now on the stage that began last is the last of the list."""
    begun, timed = ["start"], GraphRun.timed

    @contextmanager
    def noted(run: GraphRun, title: str, note: str) -> Iterator[Any]:
        begun.append(title)
        with timed(run, title, note) as replace_note:
            yield replace_note
        begun.append(f"after {title}")

    GraphRun.timed = noted  # type: ignore[method-assign]
    return begun


if __name__ == "__main__":
    main()
