"""The watch pass (shots and every signal) against a bare decode of the same file, one thread each.

    python tests/benchmarks/watch_speed.py                # bigbuckbunny.mp4 and a 720p montage
    python tests/benchmarks/watch_speed.py film.mp4 ...   # your own

Processor seconds, medians of alternating runs in one process, so that other work on the machine
matters little. PySceneDetect's own adaptive detection (its PyAV reader, one thread, its own choice
of size) is timed beside them.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("films", nargs="*", type=Path, help="default: a real clip and a montage")
    parser.add_argument("--seconds", type=float, default=40.0, help="of the montage")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    import cv2

    from tests.benchmarks.films import montage
    from tests.pipelines.pictures import real_clip

    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        films = arguments.films or [
            real_clip("bigbuckbunny.mp4"),
            montage(Path(folder) / "montage-720p.mp4", arguments.seconds),
        ]
        for film in films:
            compare(film, arguments.rounds)


def compare(film: Path, rounds: int) -> None:
    """Prints the ratios of one film."""
    jobs: dict[str, Callable[[], int]] = {
        "bare decode": lambda: decode(film),
        "decode, loop filter skipped": lambda: decode(film, {"skip_loop_filter": "all"}),
        "watch": lambda: watch(film, "skip"),
        "watch, loop filter kept": lambda: watch(film, "keep"),
        "PySceneDetect adaptive": lambda: pyscenedetect(film),
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    frames = 0
    for _ in range(rounds):
        for name, job in jobs.items():
            started_s = time.process_time()
            frames = job()
            seconds[name].append(time.process_time() - started_s)
    print(f"{film.name}: {frames} frames, median of {rounds}")
    for name, values in seconds.items():
        middle_s = statistics.median(values)
        pairs = zip(values, seconds["bare decode"], strict=True)
        ratio = statistics.median(a / b for a, b in pairs)
        print(f"  {name:28s} {1e3 * middle_s / frames:6.3f} ms a frame  {ratio:5.2f}x")


def decode(film: Path, options: dict[str, str] | None = None) -> int:
    import av

    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.codec_context.options = options or {}
        return sum(1 for _ in container.decode(stream))


def watch(film: Path, loop_filter: str) -> int:
    from pipelines.curation.watch import WatchConfig, watch_file
    from pipelines.records import Source

    source = Source("0" * 32, [film.name], size_bytes=film.stat().st_size)
    seen = watch_file(source, str(film), WatchConfig(loop_filter=loop_filter))  # type: ignore[arg-type]
    return seen.source.num_frames or 0


def pyscenedetect(film: Path) -> int:
    from scenedetect import AdaptiveDetector, SceneManager
    from scenedetect.backends.pyav import VideoStreamAv

    video = VideoStreamAv(str(film), threading_mode=None)
    video._codec_context.thread_count = 1
    manager = SceneManager()
    manager.add_detector(AdaptiveDetector())
    return manager.detect_scenes(video)


if __name__ == "__main__":
    main()
