"""Where a training step on the CPU spends its time, and what the C library's memory does to it.

    python tests/benchmarks/train_step_speed.py             # the demo's base network, 1 thread
    python tests/benchmarks/train_step_speed.py --threads 2 --rounds 7

Each round starts one process for each setting of the C library, in turn; printed are medians over
the rounds, in processor seconds (wall seconds would measure the other work on the machine too) and
as ratios to the first. A step is one worker's, of the demo's own mixture, on random latents.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from model.diffusion import DiffusionConfig
from model.presets import PRESETS
from model.unet import VideoUNet
from pipelines.training.feed.feed import Batch, Feed
from pipelines.training.latents.on_disk import open_latents
from pipelines.training.loop.objective import Objective
from pipelines.training.loop.optimization import (
    AveragedWeights,
    clip_gradients,
    held_gradients,
    make_optimizer,
)
from pipelines.training.stages import demo_base
from tests.pipelines.training.synthetic_latents import write_latents

# By default the C library hands a block of a few hundred KB or more back to the system when it is
# freed, and fetching it again costs a page fault for every 4 KiB. 32 MiB is the most it can keep.
KEPT = str(32 << 20)
SETTINGS = {
    "as it comes": {},
    "kept up to 32 MiB": {"MALLOC_TRIM_THRESHOLD_": KEPT, "MALLOC_MMAP_THRESHOLD_": KEPT},
    "the same, never trimmed": {
        "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
        "MALLOC_MMAP_THRESHOLD_": KEPT,
    },
}
PARTS = ("data", "forward and backward", "clipping", "optimizer", "averages")
PLAIN = "optimizer, not fused"


def main() -> None:
    arguments = _arguments()
    if arguments.child:
        print(json.dumps(measure(arguments.steps, arguments.threads)))
        return
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SETTINGS}
    for _ in range(arguments.rounds):
        for name, variables in SETTINGS.items():
            found[name].append(_in_a_process(arguments, variables))
    print(
        f"demo base network, {arguments.threads} thread(s), {arguments.steps} steps in each of "
        f"{arguments.rounds} processes, torch {torch.__version__}"
    )
    _print_parts(found["as it comes"])
    _print_settings(found)


def measure(steps: int, threads: int) -> dict[str, float]:
    """Processor seconds of one step by part, and page faults of one step."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    recipe = demo_base()
    unet = VideoUNet(PRESETS["demo"]().base_unet)
    optimizer, averaged = make_optimizer(unet, recipe.learning), AveragedWeights(unet)
    spare = torch.optim.AdamW(unet.parameters(), lr=0.0, weight_decay=0.0, foreach=True)
    with _demo_feed() as feed:
        objective = Objective(
            DiffusionConfig(), recipe.learning, feed.empty_text_LD(), seed=0,
            device=torch.device("cpu"),
        )  # fmt: skip
        spent = dict.fromkeys((*PARTS, PLAIN), 0.0)
        warm_up = 3
        for step in range(warm_up + steps):
            if step == warm_up:
                spent, faults = dict.fromkeys(spent, 0.0), _page_faults()
            with _timed(spent, "data"):
                batch: Batch = feed.read(step)
            with _timed(spent, "forward and backward"):
                objective.losses(unet, batch, step).loss_B.mean().backward()
            with _timed(spent, "clipping"):
                gradients = held_gradients(unet)
                norm = torch.nn.utils.get_total_norm(gradients)
                clip_gradients(gradients, norm, recipe.learning.clip_norm)
            with _timed(spent, "optimizer"):
                optimizer.step()
            with _timed(spent, PLAIN):
                spare.step()
            with _timed(spent, "averages"):
                averaged.update(unet, recipe.learning, step)
            optimizer.zero_grad(set_to_none=True)
    per_step = {name: seconds / steps for name, seconds in spent.items()}
    return {**per_step, "page faults": (_page_faults() - faults) / steps}


@contextlib.contextmanager
def _demo_feed() -> Iterator[Feed]:
    """The demo's mixture over random latents of its size."""
    with tempfile.TemporaryDirectory() as folder:
        write_latents(Path(folder) / "base", size=(16, 28), text_shape=(77, 128))
        latents = open_latents(str(Path(folder) / "base"), "base")
        with contextlib.closing(Feed(latents, demo_base().mixture, seed=0, tier="base")) as feed:
            yield feed


@contextlib.contextmanager
def _timed(spent: dict[str, float], part: str) -> Iterator[None]:
    before_s = time.process_time()
    yield
    spent[part] += time.process_time() - before_s


def _page_faults() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _in_a_process(arguments: argparse.Namespace, variables: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, __file__, "--child"]
    command += ["--steps", str(arguments.steps), "--threads", str(arguments.threads)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    done = subprocess.run(
        command, env={**environment, **variables}, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def _print_parts(rounds: list[dict[str, float]]) -> None:
    whole_s = _median_step(rounds)
    for part in (*PARTS, PLAIN):
        seconds = statistics.median(found[part] for found in rounds)
        note = "  (in place of the other; not in the step)" if part == PLAIN else ""
        print(f"{part:28s}{seconds * 1000:9.1f} ms{seconds / whole_s:8.1%}{note}")
    print(f"{'step':28s}{whole_s * 1000:9.1f} ms")


def _print_settings(found: dict[str, list[dict[str, float]]]) -> None:
    first = next(iter(found))
    print(f"\n{'memory of the C library':28s}{'step':>12s}{'ratio':>8s}{'page faults a step':>21s}")
    for name, rounds in found.items():
        # Side by side: the ratio is taken within each round.
        ratio = statistics.median(
            _step(a) / _step(b) for a, b in zip(rounds, found[first], strict=True)
        )
        faults = statistics.median(one["page faults"] for one in rounds)
        print(f"{name:28s}{_median_step(rounds) * 1000:9.1f} ms{ratio:8.3f}{faults:21,.0f}")


def _step(one: dict[str, float]) -> float:
    return sum(one[part] for part in PARTS)


def _median_step(rounds: list[dict[str, float]]) -> float:
    return statistics.median(_step(one) for one in rounds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=12, help="timed steps (default 12)")
    parser.add_argument("--rounds", type=int, default=5, help="processes of each (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="threads (default 1)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
