"""How fast batches come out of packs, beside the same clips in a WebDataset read three ways.

    python tests/benchmarks/feed_speed.py --clips 2048 --rounds 3

A clip is 16 frames of 4x32x56 and 77x1024 text features in float16: 390 KB. All rows are measured
in one run, one after another in each round; figures are medians over the rounds, and everything
lies in the page cache. `ours` is the whole way: the plan of the epoch, its packs verified (sha256
of every byte) and mapped, batches of 16 as float32 tensors, one worker. `raw tar` unpacks and
`np.load`s and makes no batches; the Ray rows make batches of 16 as well: `read_webdataset` with a
decoder of these files, and with its own. Ray's rows run on fewer clips, after a warm-up. Processor
time is of this process alone: where others use the machine, it says more than the clock.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import tarfile
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

FRAMES, SIZE, TEXT = 16, (32, 56), (77, 1024)
CLIPS_PER_PACK, CLIPS_PER_BATCH = 64, 16
GOAL_CLIPS_PER_S, GOAL_RATIO = 2000, 10


@dataclass
class Row:
    """One way of reading. `read` goes through the clips once and gives their number."""

    title: str
    read: Callable[[], int]
    is_here: bool = True
    clips_per_s: list[float] = field(default_factory=list)
    cpu_ms_per_clip: list[float] = field(default_factory=list)

    def measure(self) -> None:
        started_s, started_cpu_s = time.perf_counter(), time.process_time()
        clips = self.read()
        self.clips_per_s.append(clips / (time.perf_counter() - started_s))
        self.cpu_ms_per_clip.append(1000 * (time.process_time() - started_cpu_s) / clips)

    @property
    def median(self) -> float:
        return statistics.median(self.clips_per_s)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=2048, help="clips (390 KB each, twice)")
    parser.add_argument("--ray-clips", type=int, default=512, help="clips of the Ray rows")
    parser.add_argument("--rounds", type=int, default=3, help="times that each row is measured")
    parser.add_argument("--folder", default=None, help="where to write; default: temporary")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")  # of Ray, about how its collate function is given
    from pipelines.cluster.connection import connect
    from pipelines.config import ClusterConfig

    with (
        connect(ClusterConfig(address="local")),
        tempfile.TemporaryDirectory(prefix="feed-speed-", dir=given.folder) as folder,
    ):
        rows = write(Path(folder), given.clips, given.ray_clips)
        for number in range(given.rounds + 1):
            for row in rows:
                row.measure()
                if number == 0:
                    row.clips_per_s.clear()  # a warm-up: Ray's workers, the page cache
                    row.cpu_ms_per_clip.clear()
        report(rows)


def write(root: Path, clips: int, ray_clips: int) -> list[Row]:
    from tests.pipelines.training.synthetic_latents import write_latents

    latents = write_latents(
        root / "latents",
        "refine",
        lengths=[FRAMES] * clips,
        clips_per_pack=CLIPS_PER_PACK,
        size=SIZE,
        text_shape=TEXT,
    )
    tars = write_tars(root / "tars", latents)
    few = tars[: max(1, ray_clips // CLIPS_PER_PACK)]
    epochs = ours(latents)
    return [
        Row("raw tar + np.load", lambda: sum(1 for _ in raw(tars))),
        Row("ours, first epoch", lambda: next(epochs)),
        Row("ours, second epoch", lambda: next(epochs)),
        Row("Ray read_webdataset, our decoder", lambda: through_ray(few, decoded), False),
        Row("Ray read_webdataset, its decoder", lambda: through_ray(few, True), False),
    ]


def write_tars(folder: Path, latents: Path) -> list[str]:
    """A WebDataset of the same clips: KEY.latents.npy and KEY.text.npy."""
    from pipelines.training.latents.on_disk import open_latents
    from pipelines.training.latents.packs import map_safetensors

    folder.mkdir()
    by_pack: dict[str, list[dict[str, Any]]] = {}
    for row in open_latents(str(latents), "refine").index.to_pylist():
        by_pack.setdefault(row["pack"], []).append(row)
    paths = []
    for pack, rows in sorted(by_pack.items()):
        arrays = map_safetensors(latents / pack)
        path = folder / f"{Path(pack).stem}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in rows:
                frames = slice(row["first_row"], row["first_row"] + row["num_frames"])
                add(tar, f"{row['clip_id']}.latents.npy", arrays["latents_NCHW"][frames])
                add(tar, f"{row['clip_id']}.text.npy", arrays["text_KLD"][row["text_row"]])
        paths.append(str(path))
    return paths


def add(tar: tarfile.TarFile, name: str, values: np.ndarray) -> None:
    data = io.BytesIO()
    np.save(data, values)
    entry = tarfile.TarInfo(name)
    entry.size = data.tell()
    data.seek(0)
    tar.addfile(entry, data)


def raw(tars: list[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for path in tars:
        pair = []
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                pair.append(np.load(io.BytesIO(file.read())))
                if len(pair) == 2:
                    yield pair[0], pair[1]
                    pair = []


def ours(latents: Path) -> Iterator[int]:
    """Clips of an epoch with a new feed, then of the next with the same, over and over."""
    from pipelines.training.feed.feed import Feed
    from pipelines.training.feed.plan import MixtureConfig
    from pipelines.training.latents.on_disk import open_latents

    mixture = MixtureConfig(
        (FRAMES,), (1.0,), (16,), (1.0,), frames_per_step=FRAMES * CLIPS_PER_BATCH
    )
    while True:
        feed = Feed(open_latents(str(latents), "refine"), mixture, seed=0, tier="base")
        batches = feed.plan.batch(0)[1].num_batches
        yield sum(len(batch.latents_BCFHW) for batch in feed.batches(0, batches))
        yield sum(len(batch.latents_BCFHW) for batch in feed.batches(batches, 2 * batches))
        feed.close()


def decoded(sample: dict[str, Any]) -> dict[str, Any]:
    """What a user of Ray writes: the two arrays of a sample, the first as CFHW."""
    latents_FCHW = np.load(io.BytesIO(sample["latents.npy"]))
    return {
        "latents": np.ascontiguousarray(latents_FCHW.swapaxes(0, 1)),
        "text": np.load(io.BytesIO(sample["text.npy"])),
    }


def through_ray(tars: list[str], decoder: Any) -> int:
    import ray

    batches = ray.data.read_webdataset(tars, decoder=decoder).iter_torch_batches(
        batch_size=CLIPS_PER_BATCH, collate_fn=as_tensors
    )
    name = "latents" if decoder is decoded else "latents.npy"
    return sum(len(batch[name]) for batch in batches)


def as_tensors(batch: dict[str, np.ndarray]) -> dict[str, Any]:
    import torch

    return {
        name: torch.from_numpy(np.stack(list(values))).float()
        for name, values in batch.items()
        if not name.startswith("__")
    }


def report(rows: list[Row]) -> None:
    slowest = min(row.median for row in rows[3:])
    print(f"{'':34}{'clips/s':>9}{'over Ray':>10}{'CPU ms a clip':>15}   rounds")
    for row in rows:
        each = " ".join(f"{value:.0f}" for value in row.clips_per_s)
        cpu_ms = f"{statistics.median(row.cpu_ms_per_clip):.2f}" if row.is_here else "-"
        ratio = row.median / rows[3].median
        print(f"{row.title:34}{row.median:>9.0f}{ratio:>10.1f}{cpu_ms:>15}   {each}")
    first = rows[1].median
    for goal, got in ((GOAL_CLIPS_PER_S, first), (GOAL_RATIO, first / rows[3].median)):
        print(f"goal {goal}: {got:.1f}, {'met' if got >= goal else 'missed'}")
    print(f"over the slower Ray row: {first / slowest:.1f}")


if __name__ == "__main__":
    main()
