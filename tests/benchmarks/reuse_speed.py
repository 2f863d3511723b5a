"""What a second dataset costs beside a first: a changed threshold, captioner, added film, what-if.

    python tests/benchmarks/reuse_speed.py --films 8

Each row is a job of its own on two cores, as a user starts it. Ray's start is in the rows that need
Ray: those that decode or run a model. Seconds are of the clock and of the processor (the job and
every process below it); "CPU %" is the share of the first run, both less what a job with nothing to
do takes (the first row). The counts are the job's own: files decoded, clips captioned, scored, cut,
and taken out of the earlier dataset's shards.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

SAMPLE_EVERY_S = 0.1
COUNTS = ("watched", "captioned", "scored", "cut", "taken")


@dataclass(frozen=True)
class Timed:
    wall_s: float
    cpu_s: float
    result: dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--films", type=int, default=8)
    films = parser.parse_args().films
    with tempfile.TemporaryDirectory(prefix="reuse-") as folder:
        root = Path(folder)
        write_footage(root, films)
        measure(root)


def write_footage(root: Path, films: int) -> None:
    """`nothing`, `before` (all films but one) and `after` (all of them)."""
    from pipelines.footage import write_world

    write_world(root / "world", preset="large", num_films=films, real_clips=False, broken=False)
    found = sorted(p for p in (root / "world").rglob("film-*") if p.suffix != ".json")
    for name, chosen in (("nothing", []), ("before", found[:-1]), ("after", found)):
        (root / name).mkdir()
        (root / name / "notes.txt").write_text("nothing to see")
        for path in chosen:
            shutil.copy(path, root / name)


def measure(root: Path) -> None:
    first: Timed | None = None
    idle = curated(root, "nothing", "idle")
    print(f"{'':24}{'wall s':>8}{'CPU s':>8}{'CPU %':>8}  " + " ".join(f"{c:>9}" for c in COUNTS))
    say("nothing to do", idle, idle, None)
    for title, footage, arguments in (
        ("first run", "before", ()),
        ("stricter threshold", "before", ("--limits.min_duration_s", "1.5")),
        ("looser threshold", "before", ("--limits.min_duration_s", "0.5")),
        ("other captioner", "before", ("--captions.clips_per_batch", "4")),
        ("one film added", "after", ()),
    ):
        timed = curated(root, footage, title.replace(" ", "-"), *arguments)
        first = first or timed
        say(title, timed, idle, first)
    asked = run(
        "--what-if", "--dataset", root / "sets" / "first-run", "--motion.min_motion", "0.05"
    )
    no_ray = Timed(0.0, 0.0, {})
    say("what if", asked, no_ray, first)


def curated(root: Path, footage: str, dataset: str, *arguments: str) -> Timed:
    places = ("--footage", root / footage, "--dataset", root / "sets" / dataset)
    return run(*places, "--tracking.enabled", "false", "--cluster.num_cpus", "2", *arguments)


def run(*arguments: str | Path) -> Timed:
    """One job; processor seconds by looking at its processes until they are gone."""
    started_s = time.monotonic()
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    job = subprocess.Popen(
        [sys.executable, "jobs/curate.py", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    seen: dict[tuple[int, float], float] = {}
    while job.poll() is None:
        for process in family_of(job.pid):
            try:
                times = process.cpu_times()
                seen[process.pid, process.create_time()] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
        time.sleep(SAMPLE_EVERY_S)
    out = job.stdout.read().decode() if job.stdout else ""
    if job.returncode:
        raise RuntimeError(f"the job ended with {job.returncode}: {arguments}")
    return Timed(time.monotonic() - started_s, sum(seen.values()), json.loads(out.splitlines()[-1]))


def family_of(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def say(title: str, timed: Timed, idle: Timed, first: Timed | None) -> None:
    share = ""
    if first is not None:
        whole = first.cpu_s - (idle.cpu_s if idle.result else 0.0)
        share = f"{100 * max(timed.cpu_s - idle.cpu_s, 0.0) / whole:.1f}"
    done = timed.result.get("done", {})
    counts = " ".join(f"{done.get(c, ''):>9}" for c in COUNTS)
    print(f"{title:24}{timed.wall_s:8.1f}{timed.cpu_s:8.1f}{share:>8}  {counts}", flush=True)


if __name__ == "__main__":
    main()
