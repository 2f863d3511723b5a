"""From a film to a shard (watch, judge without models, cut, write), against a bare decode.

    python tests/benchmarks/curation_speed.py
    python tests/benchmarks/curation_speed.py film.mp4 ... --data-juicer /path/to/its/python

Processor seconds on one thread in one process, medians of alternating runs. With `--data-juicer`,
the interpreter of an environment that has `py-data-juicer==1.6.1`, `av==13.1.0` and `ray` (and
`ffmpeg` and `ffprobe` on the path), a recipe of equal work runs on the same films and its
processor seconds, those of its children included, are printed beside ours. Imports count for
neither.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("films", nargs="*", type=Path, help="default: real clips and a montage")
    parser.add_argument("--seconds", type=float, default=40.0, help="of the montage")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data-juicer", type=Path, metavar="PYTHON")
    arguments = parser.parse_args()

    import cv2

    from tests.benchmarks.films import montage
    from tests.pipelines.pictures import real_clip

    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = arguments.films or [
            real_clip("bigbuckbunny.mp4"),
            real_clip("bikes.mp4"),
            montage(folder / "montage-720p.mp4", arguments.seconds),
        ]
        ours = {film: compare(film, folder, arguments.rounds) for film in films}
        if arguments.data_juicer:
            for film, seconds in ours.items():
                theirs = data_juicer(arguments.data_juicer, film)
                print(
                    f"{film.name}: Data-Juicer {theirs['cpu_s']:.1f} s, {theirs['clips']} clips; "
                    f"{theirs['cpu_s'] / seconds:.1f}x ours"
                )


def compare(film: Path, folder: Path, rounds: int) -> float:
    """Prints the ratios of one film; returns our seconds."""
    from tests.benchmarks.watch_speed import decode

    jobs: dict[str, Callable[[], object]] = {
        "bare decode": lambda: decode(film),
        "watch and judge": lambda: watched(film),
        "through shards": lambda: curated(film, folder),
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            started_s = time.process_time()
            job()
            seconds[name].append(time.process_time() - started_s)
    kept, methods = curated(film, folder)
    print(f"{film.name}: {kept} clips kept ({methods}), median of {rounds}")
    for name, values in seconds.items():
        pairs = zip(values, seconds["bare decode"], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"  {name:18s} {statistics.median(values):7.3f} s  {ratio:6.2f}x")
    return statistics.median(seconds["through shards"])


def watched(film: Path) -> list:  # type: ignore[type-arg]
    from pipelines.curation.config import demo
    from pipelines.curation.verdicts import judge_measured
    from pipelines.curation.watch import watch_file
    from pipelines.records import Source

    config = demo()
    source = Source("0" * 32, [film.name], size_bytes=film.stat().st_size)
    seen = watch_file(source, str(film), config.watch)
    return [judge_measured(clip, config) for clip in seen.clips]


def curated(film: Path, folder: Path) -> tuple[int, str]:
    """How many clips were kept, and how they were cut."""
    from pipelines.curation.cuts import order_of
    from pipelines.curation.shards import Sample, ShardsConfig, plan_shards, write_shard
    from pipelines.media import cut_clips
    from pipelines.storage import Store

    kept = sorted((c for c in watched(film) if c.verdict == "kept"), key=lambda c: c.start_frame)
    orders = [order_of(clip, folder) for clip in kept]
    results = cut_clips(film, orders)
    cut = [
        (dataclasses.replace(clip, content_sha256=result.sha256), order.out, result)
        for clip, order, result in zip(kept, orders, results, strict=True)
    ]
    samples = [Sample(clip, result.size_bytes) for clip, _, result in cut]
    paths = {clip.clip_id: path for clip, path, _ in cut}
    for shard in plan_shards(samples, ShardsConfig()):
        clips = [sample.clip for sample in shard.samples]
        write_shard(Store(str(folder)), shard.name, clips, lambda c: paths[c.clip_id].read_bytes())
    methods = [result.method for _, _, result in cut]
    return len(kept), ", ".join(f"{methods.count(m)} {m}" for m in sorted(set(methods)))


def data_juicer(python: Path, film: Path) -> dict[str, float]:
    recipe = Path(__file__).with_name("data_juicer_recipe.py")
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python), str(recipe), folder, str(film.resolve())]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(told.splitlines()[-1]))


if __name__ == "__main__":
    main()
