"""What a safe encoding of the sandbox's answers costs beside pickle, which it replaces.

    python -m tests.benchmarks.wire_speed [--rounds 30]

Each answer there and back, by turns in one process; the ratio of the medians (below 1: quicker).
`film` is what watching a film of 40 shots gives, `frames` are 16 pictures of 1280x720.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pipelines.curation.watch import Watched
from pipelines.records import Source
from pipelines.sandbox import wire
from tests.pipelines.curation.clips_of import a_clip

JPEG_BYTES = 30_000


def answers() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    clips = [a_clip(start_frame=50 * n, end_frame=50 * n + 50) for n in range(40)]
    samples = {clip.clip_id: [rng.bytes(JPEG_BYTES) for _ in range(4)] for clip in clips}
    frames = rng.integers(0, 255, (16, 720, 1280, 3), np.uint8)
    return {
        "film": Watched(Source("0" * 32, ["film.mp4"], 1), clips, samples),
        "frames": frames,
        "features": [rng.standard_normal((77, 1024)).astype(np.float32) for _ in range(32)],
    }


def seconds(there_and_back: Callable[[Any], Any], answer: Any) -> float:
    started_s = time.perf_counter()
    there_and_back(answer)
    return time.perf_counter() - started_s


def by_pickle(answer: Any) -> Any:
    return pickle.loads(pickle.dumps(answer, protocol=pickle.HIGHEST_PROTOCOL))


def by_wire(answer: Any) -> Any:
    return wire.decode(wire.encode(answer))


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.benchmarks.wire_speed", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args(argv).rounds
    for name, answer in answers().items():
        took = [(seconds(by_wire, answer), seconds(by_pickle, answer)) for _ in range(rounds)]
        ours, pickles = (statistics.median(column) for column in zip(*took, strict=True))
        figures = {"answer": name, "wire_ms": ours * 1e3, "pickle_ms": pickles * 1e3}
        print(json.dumps({**figures, "ratio": round(ours / pickles, 2)}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
