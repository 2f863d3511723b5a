"""Cutting every shot of a film, copied or encoded, against a bare decode of the same file.

    python tests/benchmarks/cut_speed.py                # bikes.mp4 and a 720p montage
    python tests/benchmarks/cut_speed.py film.mp4 ...   # your own

Processor seconds on one thread, medians of alternating runs in one process, so that other work on
the machine matters little. The shots are those that the watch pass finds. The boundary check is
timed on every clip; a curation does it for a share of them (`cuts.leak_share`).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

if TYPE_CHECKING:
    from pipelines.media import CutOrder, Method


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("films", nargs="*", type=Path, help="default: a real clip and a montage")
    parser.add_argument("--seconds", type=float, default=30.0, help="of the montage")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()

    from tests.benchmarks.films import montage
    from tests.pipelines.pictures import real_clip

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = arguments.films or [
            real_clip("bikes.mp4"),
            montage(folder / "montage-720p.mp4", arguments.seconds),
        ]
        for film in films:
            compare(film, folder, arguments.rounds)


def compare(film: Path, folder: Path, rounds: int) -> None:
    """Prints the ratios of one film."""
    from pipelines.curation.leak import measure_leak
    from tests.benchmarks.watch_speed import decode

    orders = orders_of(film, folder)
    jobs: dict[str, Callable[[], object]] = {
        "bare decode": lambda: decode(film),
        "all shots, smart": lambda: cut(film, orders, "smart"),
        "boundary check of all": lambda: [measure_leak(film, order) for order in orders],
        "all shots, encode": lambda: cut(film, orders, "encode"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            started_s = time.process_time()
            job()
            seconds[name].append(time.process_time() - started_s)
    methods = ", ".join(f"{n} {how}" for how, n in sorted(cut(film, orders, "smart").items()))
    print(f"{film.name}: {len(orders)} shots ({methods}), median of {rounds}")
    for name, values in seconds.items():
        pairs = zip(values, seconds["bare decode"], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"  {name:24s} {statistics.median(values):7.3f} s  {ratio:6.3f}x")


def orders_of(film: Path, folder: Path) -> list[CutOrder]:
    """A cut of every shot that the watch pass finds."""
    from pipelines.curation.cuts import order_of
    from pipelines.curation.watch import WatchConfig, watch_file
    from pipelines.records import Source

    source = Source("0" * 32, [film.name], size_bytes=film.stat().st_size)
    return [order_of(clip, folder) for clip in watch_file(source, str(film), WatchConfig()).clips]


def cut(film: Path, orders: Sequence[CutOrder], method: Method) -> Counter[str]:
    """How many clips were cut how."""
    from pipelines.media import CutResult, cut_clips

    results = cut_clips(film, orders, method)
    return Counter(r.method if isinstance(r, CutResult) else str(r) for r in results)


if __name__ == "__main__":
    main()
