"""How long lineage takes to answer, over a million clips of fifty thousand sources.

    python tests/benchmarks/lineage_speed.py [--world FOLDER] [--sources 50000] [--rounds 7]

Each question is asked in a process of its own: the seconds of the first answer and the median of
the next, after imports; the peak memory; and the whole command next to a bare Python start. The
same rows read with plain pyarrow, side by side, for a ratio.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from pipelines.storage import Store
from tests.benchmarks.lineage_world import LineageWorld, build, world_at

TARGETS_S = {"source": 0.1, "checkpoint": 0.2, "takedown": 2.0, "diff": 1.0}
LISTED = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", help="folder to build in, or that holds one (default: a new)")
    parser.add_argument("--sources", type=int, default=50_000, help="sources, of 20 clips each")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.ask:
        print(json.dumps(measure(asked.ask, world_at(Path(asked.world)), asked.rounds)))
        return
    with tempfile.TemporaryDirectory(prefix="i2vgen-lineage-") as scratch:
        world = prepared(Path(asked.world or scratch), asked.sources)
        report(world, asked.rounds)


def prepared(root: Path, sources: int) -> LineageWorld:
    if (root / "videos").exists():
        return world_at(root)
    print(f"writing {sources * 20:,} clips below {root}", file=sys.stderr)
    return build(root / "world" if root.exists() else root, sources)


def report(world: LineageWorld, rounds: int) -> None:
    print("| question | first, s | median, s | target, s | memory, MiB | plain pyarrow | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name in (*QUESTIONS, "checkpoint and its base"):
        found = in_child(name, world, rounds)
        plain = in_child(f"plain {name}", world, 3) if name in PLAIN else None
        beside = (
            f"{plain['median']:.2f} | {plain['median'] / found['median']:.1f}x" if plain else "|"
        )
        print(
            f"| {name} | {found['first']:.3f} | {found['median']:.3f} "
            f"| {TARGETS_S.get(name, '')} | {found['memory_mib']:.0f} | {beside} |"
        )
    print()
    bare = median_s([sys.executable, "-c", "pass"], rounds)
    print(f"python -c pass: {bare:.3f} s; whole commands, past that:")
    for name, command in commands(world).items():
        whole = median_s([sys.executable, *command], rounds)
        print(f"  {name}: {whole - bare:.3f} s")


def in_child(question: str, world: LineageWorld, rounds: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--ask", question, "--world", str(world.root)]
    done = subprocess.run([*command, "--rounds", str(rounds)], capture_output=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def median_s(command: list[str], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        started_s = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        taken.append(time.perf_counter() - started_s)
    return statistics.median(taken)


def commands(world: LineageWorld) -> dict[str, list[str]]:
    trace = ["jobs/trace.py"]
    under = ["--under", str(world.root)]
    return {
        "trace source": [*trace, "source", some_source(world), *under],
        "trace clip": [*trace, "clip", some_clip(world), *under],
        "trace checkpoint (base)": [*trace, "checkpoint", str(world.base), *under],
        "trace checkpoint (refine, and its base)": [
            *trace,
            *("checkpoint", str(world.refine)),
            *under,
        ],
        "trace dataset A B": [*trace, "dataset", str(world.dataset), str(world.later)],
    }


# --- one question, in this process ---------------------------------------------------------------


def measure(question: str, world: LineageWorld, rounds: int) -> dict[str, float]:
    """Seconds of the first and the median of later answers, and the process's peak memory."""
    ask = answerer(question, world)
    taken = []
    for _ in range(rounds + 1):
        started_s = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - started_s)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "first": taken[0],
        "median": statistics.median(taken[1:]),
        "memory_mib": peak_mib,
    }


def answerer(question: str, world: LineageWorld) -> Callable[[], Any]:
    if question.startswith("plain "):
        return PLAIN[question.removeprefix("plain ")](world)
    if question == "checkpoint and its base":
        return ask_checkpoint(world, world.refine)
    return QUESTIONS[question](world)


def ask_source(world: LineageWorld) -> Callable[[], Any]:
    from pipelines.lineage import answers

    asked = answers.Question("source", [some_source(world)], [str(world.root)])
    return lambda: answers.answer(asked)


def ask_checkpoint(world: LineageWorld, folder: Path | None = None) -> Callable[[], Any]:
    from pipelines.lineage import answers, trace_text

    where = str(folder or world.base)
    asked = answers.Question("checkpoint", [where], [str(world.root)], shown=trace_text.ROWS_SHOWN)
    return lambda: answers.answer(asked)


def ask_diff(world: LineageWorld) -> Callable[[], Any]:
    from pipelines.lineage import answers

    asked = answers.Question("dataset", [str(world.dataset), str(world.later)])
    return lambda: answers.answer(asked)


def ask_takedown(world: LineageWorld) -> Callable[[], Any]:
    """From a list of source ids to the shards to rewrite, the checkpoints that saw them and the
    last clean step of each training."""
    from pipelines.lineage import catalog, trace
    from pipelines.lineage.manifest import read_dataset
    from pipelines.lineage.takedown_list import resolve_targets
    from pipelines.lineage.taken_rows import affected_by

    named = source_ids(world)[:: max(1, len(source_ids(world)) // LISTED)][:LISTED]

    def ask() -> None:
        dataset = read_dataset(str(world.dataset))
        choice = resolve_targets(dataset, named)
        affected = affected_by(dataset, choice)
        saw = trace.who_saw(catalog.build([str(world.root)]), choice, each_clip=False)
        clean = trace.last_clean_steps(saw["checkpoints"], saw["clean_checkpoints"])
        assert affected.keys_of_shard and saw["checkpoints"] and clean

    return ask


QUESTIONS: dict[str, Callable[[LineageWorld], Callable[[], Any]]] = {
    "source": ask_source,
    "checkpoint": ask_checkpoint,
    "takedown": ask_takedown,
    "diff": ask_diff,
}


# --- the same, with the obvious tool -------------------------------------------------------------


def plain_source(world: LineageWorld) -> Callable[[], Any]:
    import pyarrow.parquet as pq

    wanted = [("source_id", "=", some_source(world))]
    files = sorted(world.root.rglob("*.parquet"))
    files = [file for file in files if file.name != "shards.parquet"]
    return lambda: [pq.read_table(file, filters=wanted).num_rows for file in files]


def plain_checkpoint(world: LineageWorld) -> Callable[[], Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def ask() -> Any:
        ledger = pa.concat_tables(pq.read_table(f) for f in world.base.rglob("lineage.parquet"))
        seen = ledger.group_by(["source_id", "clip_id"]).aggregate(
            [("times", "sum"), ("first_step", "min")]
        )
        return seen.group_by("source_id").aggregate(
            [("times_sum", "sum"), ("first_step_min", "min"), ("clip_id", "count")]
        )

    return ask


def plain_diff(world: LineageWorld) -> Callable[[], Any]:
    import pyarrow.parquet as pq

    columns = ["clip_id", "verdict", "content_sha256", "caption", "short_caption"]

    def ask() -> Any:
        old, new = (
            pq.read_table(f / "clips.parquet", columns=columns)
            for f in (world.dataset, world.later)
        )
        return old.join(new, "clip_id", right_suffix="_new", join_type="full outer").num_rows

    return ask


PLAIN: dict[str, Callable[[LineageWorld], Callable[[], Any]]] = {
    "source": plain_source,
    "checkpoint": plain_checkpoint,
    "diff": plain_diff,
}


def source_ids(world: LineageWorld) -> list[str]:
    ids: list[str] = (
        Store(str(world.dataset)).read_table("sources.parquet", ["source_id"])["source_id"]
    ).to_pylist()
    return ids


def some_source(world: LineageWorld) -> str:
    return source_ids(world)[len(source_ids(world)) // 2]


def some_clip(world: LineageWorld) -> str:
    clips = Store(str(world.dataset)).read_table("clips.parquet", ["clip_id"])["clip_id"]
    return str(clips[len(clips) // 2].as_py())


if __name__ == "__main__":
    main()
