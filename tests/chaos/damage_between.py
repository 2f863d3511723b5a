"""Damage to a file that a killed job reads when it goes on: refused, by name, and nothing made."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.damage import damaged
from tests.chaos.job_process import Running


def refusal_violations(
    command: Sequence[str], files: Sequence[Path], kind: str, seed: int, out: Path, home: Path
) -> list[str]:
    """Damages one of the files, drawn from the seed, and runs the command; the file is whole again
    afterwards. What the command did to its output otherwise is a violation."""
    rng = random.Random(seed)
    path = rng.choice(sorted(files))
    before = visible(out)
    with damaged(path, rng, kind) as done:
        running = Running(command, {}, home=home)
        code, said = running.wait(), running.said()
        after = visible(out)
    found = []
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    if code != 2 or "Traceback" in said:
        found.append(f"{done}: ended with {code}, {said[-500:]}")
    elif len(errors) != 1 or path.name not in errors[0]:
        found.append(f"{done}: not named in {errors}")
    if after != before:
        found.append(f"{done}: {sorted(after ^ before)[:3]} came or went")
    return found


def visible(out: Path) -> set[str]:
    """The headers that say that an output is whole."""
    names = ("latents.json", "checkpoint.json", "dataset.json")
    return {str(p.relative_to(out)) for name in names for p in out.rglob(name)}


def read_again(job: str, before: Path, out: Path) -> list[Path]:
    """What the job reads when it goes on into `out`; `before`: what earlier jobs made."""
    if job == "encode":
        tables = [before / "set" / f"{name}.parquet" for name in ("clips", "shards")]
        return [before / "set" / "dataset.json", *tables, *(before / "set" / "shards").iterdir()]
    latents = before / "latents"
    tables = [latents / name for name in ("latents.json", "index.parquet", "packs.parquet")]
    newest = max((out / "checkpoints").glob("step-*"))
    checkpoint = (p for p in newest.rglob("*") if p.is_file() and p.name != "README.md")
    return [*tables, *(latents / "packs").iterdir(), *checkpoint]
