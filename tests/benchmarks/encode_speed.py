"""What encoding costs, and what taking over saves: packs made in this process, without Ray.

    python tests/benchmarks/encode_speed.py --dataset DATASET --rounds 3

Rows: decoding alone; all clips encoded, decoded between the networks' work (one after another) and
ahead of it (as the job does); all clips taken over from the packs of the row before. In each round
one after another, networks loaded before; figures are medians. Processor time is of this process
with its threads: where others use the machine, it says more than the clock.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from pipelines.storage import Store  # noqa: E402
from pipelines.training.config import EncodeConfig  # noqa: E402
from pipelines.training.latents.clip_encoder import ClipEncoder  # noqa: E402
from pipelines.training.latents.encode_plan import prepare  # noqa: E402
from pipelines.training.latents.pack_encoder import PackEncoder  # noqa: E402
from pipelines.training.latents.recipe import recipe_of  # noqa: E402
from pipelines.training.latents.reuse import FormerFeatures  # noqa: E402
from pipelines.training.latents.shard_members import ShardMembers, Shards  # noqa: E402


class OneAfterAnother(PackEncoder):
    """Decodes a clip when the networks are done with the one before."""

    def _decoded(
        self, members: ShardMembers, clips: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[Mapping[str, Any], Any]]:
        for clip in clips:
            yield clip, self.encoder.decode(clip, members.read(clip))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", required=True, help="dataset written by jobs/curate.py")
    parser.add_argument("--stage", default="base", choices=("base", "refine"))
    parser.add_argument("--rounds", type=int, default=3, help="times that each row is measured")
    parser.add_argument("--threads", type=int, default=1, help="of the networks")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    config = EncodeConfig(dataset=given.dataset, stage=given.stage)
    encoder = ClipEncoder(config.encoders, recipe_of(config))
    rounds = [measure(config, encoder) for _ in range(given.rounds)]
    print(f"{'':36}{'s':>8}{'CPU s':>8}")
    for title in rounds[0]:
        wall, cpu = (statistics.median(r[title][i] for r in rounds) for i in (0, 1))
        print(f"{title:36}{wall:>8.2f}{cpu:>8.2f}")


def measure(config: EncodeConfig, encoder: ClipEncoder) -> dict[str, tuple[float, float]]:
    with tempfile.TemporaryDirectory(prefix="encode-speed-") as folder:
        root = Path(folder)
        return {
            "decoding alone": timed(lambda: decode(config, encoder, root / "0")),
            "encoded, one after another": timed(
                lambda: make(OneAfterAnother, config, encoder, root / "1")
            ),
            "encoded, decoded ahead": timed(lambda: make(PackEncoder, config, encoder, root / "2")),
            "taken over": timed(
                lambda: make(PackEncoder, config, encoder, root / "3", str(root / "2"))
            ),
        }


def timed(work: Callable[[], None]) -> tuple[float, float]:
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started_s, time.process_time() - started_cpu_s


def decode(config: EncodeConfig, encoder: ClipEncoder, folder: Path) -> None:
    shards = Shards(Store.open(config.dataset).uri)
    for task in planned(config, folder, "").tasks:
        members = shards.members(task.shard, task.shard_sha256)
        for clip in task.clips:
            encoder.decode(clip, members.read(clip))
    shards.close()


def make(
    kind: type[PackEncoder],
    config: EncodeConfig,
    encoder: ClipEncoder,
    folder: Path,
    reuse: str = "",
) -> None:
    request = planned(config, folder, reuse)
    digests = {role: named["digest"] for role, named in encoder.names.items()}
    former = FormerFeatures(request.former.formers, encoder.recipe, digests)
    packs = kind(encoder, request.config.dataset, former)
    made = [packs.write(Store.open(str(folder)), task) for task in request.tasks]
    packs.close()
    assert sum(one.reused for one in made) == (request.num_clips if reuse else 0)


def planned(config: EncodeConfig, folder: Path, reuse: str) -> Any:
    return prepare(dataclasses.replace(config, latents=str(folder), reuse=reuse))


if __name__ == "__main__":
    main()
