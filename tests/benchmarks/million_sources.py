"""The driver's own work at a million tiny sources: seconds, memory, files, by size.

    python tests/benchmarks/million_sources.py --sources 1000,10000,100000

What workers would have found is made up (scale_world.py). Up to --commits-up-to sources it is
committed source by source, as workers do it, and the driver finds it; beyond, parts of judged clips
are written as workers write them, without the commits (a dozen files for each source). Then a
driver, in a process of its own and without Ray, curates: it lists, identifies, judges, finds
duplicates, plans and writes shards, tables, manifest and report.

Memory is given twice: all of it, and the part that is no file's (`own`), which the system cannot
take back. --limit-mib N lets the driver have no more than that, what the system keeps of files for
it included (a memory cgroup, so root): it must end all the same.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

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
    parser.add_argument("--limit-mib", type=int, default=0, help="memory of the driver; 0: any")
    parser.add_argument("--drive", default="", help="curate the world in this folder")
    parser.add_argument("--make-up", action="store_true", help="there are no commits")
    given = parser.parse_args()
    if given.drive:
        print(json.dumps(driven(Path(given.drive), given.make_up)))
        return
    rows = []
    for count in (int(text) for text in given.sources.split(",")):
        with_commits = count <= given.commits_up_to
        rows.append(measured(count, given.folder, with_commits, given.limit_mib))
        print(json.dumps(rows[-1]), flush=True)
        if given.out:
            Path(given.out).write_text(json.dumps(rows, indent=1) + "\n")


def measured(count: int, parent: str, with_commits: bool, limit_mib: int) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="scale-", dir=parent or None))
    try:
        started_s = time.monotonic()
        write_footage(folder, count)
        if with_commits:
            commit_all(folder, count)
        made_s = round(time.monotonic() - started_s, 1)
        command = [sys.executable, __file__, "--drive", str(folder)]
        command += [] if with_commits else ["--make-up"]
        with memory_limit(limit_mib) as enter:
            done = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, preexec_fn=enter
            )
        figures = json.loads(done.stdout.splitlines()[-1])
        said = {"sources": count, "commits": with_commits, "made_s": made_s}
        return {**said, "limit_mib": limit_mib, **figures}
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
    over = threading.Event()
    peaks: Counter[str] = Counter()  # MiB, by stage
    own_peaks: Counter[str] = Counter()
    at_work = noted_stages()

    def sample() -> None:
        while not over.wait(SAMPLE_S):
            whole, own = memory_mib()
            peaks[at_work[-1]] = max(peaks[at_work[-1]], whole)
            own_peaks[at_work[-1]] = max(own_peaks[at_work[-1]], own)

    before, _ = memory_mib()
    started_s, started_cpu_s = time.monotonic(), time.process_time()
    threading.Thread(target=sample, daemon=True).start()
    curated = curating.curate(prepare(config))
    over.set()
    return {
        "seconds": round(time.monotonic() - started_s, 1),
        "cpu_seconds": round(time.process_time() - started_cpu_s, 1),
        "stages": {t.title: round(t.seconds, 2) for t in curated.stage_times},
        "before_mib": before,
        "peak_mib": max(peaks.values()),
        "own_peak_mib": max(own_peaks.values()),
        "peak_mib_by_stage": dict(peaks),
        "own_peak_mib_by_stage": dict(own_peaks),
        "opened": events["open"],
        "listed": sum(events[name] for name in LISTINGS),
        "digest": curated.digest,
        "kept": curated.counts["kept"],
        "clips": curated.counts["clips"],
        "shards": curated.counts["shards"],
    }


def memory_mib() -> tuple[int, int]:
    """(in memory, and of that what is no file's) of this process."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    whole, own = (int(fields[name].split()[0]) >> 10 for name in ("VmRSS", "RssAnon"))
    return whole, own


@contextmanager
def memory_limit(limit_mib: int) -> Iterator[Callable[[], None] | None]:
    """What a new process must call to live under the limit."""
    if not limit_mib:
        yield None
        return
    v1 = Path("/sys/fs/cgroup/memory")
    group = (v1 if v1.is_dir() else v1.parent) / f"i2vgen-scale-{os.getpid()}"
    group.mkdir()
    try:
        limit = "memory.limit_in_bytes" if v1.is_dir() else "memory.max"
        (group / limit).write_text(str(limit_mib << 20))
        yield lambda: (group / "cgroup.procs").write_text(str(os.getpid())) and None
    finally:
        group.rmdir()


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
