"""The watch stage through Ray on one core and on two, over many files.

    python tests/benchmarks/cores_speed.py --files 16 --rounds 3

Seconds of the clock from the first task to the last, once the workers are up (a few small files
are watched before). Needs two cores with nothing else to do: the load average is printed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=12.0, help="of each film")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", str(REPOSITORY))

    from pipelines.job import prepare_process
    from tests.benchmarks.films import montage
    from tests.pipelines.pictures import real_clip

    prepare_process()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        film = montage(folder / "film.mp4", arguments.seconds).read_bytes()
        small = real_clip("carphone_pristine.mp4").read_bytes()
        for number in range(arguments.files):  # bytes behind the last box make another source
            _write(folder / "many" / f"{number:03d}.mp4", film + bytes([number]))
        for number in range(8):
            _write(folder / "few" / f"{number:03d}.mp4", small + bytes([number]))
        seconds: dict[int, list[float]] = {1: [], 2: []}
        for round_ in range(arguments.rounds):
            for cores, found in seconds.items():
                found.append(watched_in_s(folder, cores, f"{round_}-{cores}"))
        one_s, two_s = (statistics.median(found) for found in seconds.values())
        load = os.getloadavg()[0]
        print(f"{arguments.files} films: 1 core {one_s:.1f} s, 2 cores {two_s:.1f} s", end=": ")
        print(f"{one_s / two_s:.2f}x (median of {arguments.rounds}; load average {load:.1f})")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)


def watched_in_s(folder: Path, cores: int, name: str) -> float:
    from pipelines.cluster.connection import connect
    from pipelines.config import ClusterConfig

    with connect(ClusterConfig(num_cpus=cores)):
        run_watch(folder / "few", folder / f"set-few-{name}")
        started_s = time.monotonic()
        run_watch(folder / "many", folder / f"set-many-{name}")
        return time.monotonic() - started_s


def run_watch(footage: Path, dataset: Path) -> None:
    from pipelines.curation.config import demo
    from pipelines.curation.ingest import ingest
    from pipelines.curation.prepared import work_of
    from pipelines.curation.tasks import watch_source_once
    from pipelines.curation.workers import dataset_of
    from pipelines.records import to_row
    from pipelines.storage import Store

    config = dataclasses.replace(
        demo(), footage=str(footage), dataset=str(dataset / "set"), work=str(dataset / "work")
    )
    work = work_of(config, Store.open(config.dataset))
    rows = [
        {"source": json.dumps(to_row(f.source)), "paths": [os.fsencode(f.path)]}
        for f in ingest(str(footage))
    ]
    told = {"fn_kwargs": {"work": work}, "num_cpus": 1}
    assert all(
        row["watched_now"] for row in dataset_of(rows).map(watch_source_once, **told).iter_rows()
    )


if __name__ == "__main__":
    main()
