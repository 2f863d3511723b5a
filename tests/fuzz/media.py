"""Mutated media through ingest, watch and cut: each gives a row with a known reason, in time.

    python -m tests.fuzz.media --files 5000 --seed 0 --minutes 20 [--keep DIR]

Prints a JSON object: files by outcome, and what must not be (`faults`): an exception, an unknown
reason, a fault of ours in the log, a call that took longer than its limits. With `--keep` the files
at fault are kept, and those that killed the decoding process.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.curation.cuts import CutsConfig, cut_all
from pipelines.curation.ingest import identify, list_footage
from pipelines.curation.watch import WatchConfig, watch_source
from pipelines.records import REASONS
from pipelines.sandbox.calls import SandboxConfig
from tests.fuzz.corpus import media_corpus
from tests.fuzz.mutations import mutated

SANDBOX = SandboxConfig(wall_s=20.0, wall_s_per_mib=1.0, memory_mib=700)
WATCH = WatchConfig(sandbox=SANDBOX)
CUTS = CutsConfig(sandbox=SANDBOX, leak_share=0.2)
GRACE_S = 15.0  # to start a new decoding process on a busy machine
Change = Callable[[bytes, Sequence[bytes], np.random.Generator], bytes]
CALLS_PER_FILE = 4  # manifest, watch, cut, the cut's check


@dataclass
class Found:
    """What came of the files so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    cuts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "files": sum(self.outcomes.values()),
            "outcomes": dict(self.outcomes.most_common()),
            "cuts": dict(self.cuts.most_common()),
            "faults": self.faults,
            "slowest_s": round(self.slowest_s, 1),
            "seconds": round(self.seconds),
        }


def fuzz_media(
    corpus: Mapping[str, bytes],
    count: int,
    seed: int,
    seconds: float,
    *,
    keep: Path | None = None,
    change: Change = mutated,
) -> Found:
    """Tries `count` mutated files, or as many as the time allows."""
    found, names, whole = Found(), list(corpus), list(corpus.values())
    started_s = time.monotonic()
    for number in range(count):
        found.seconds = time.monotonic() - started_s
        if found.seconds > seconds:
            break
        rng = np.random.default_rng([seed, number])
        name = names[number % len(names)]
        data = change(corpus[name], whole, rng)
        with tempfile.TemporaryDirectory(prefix="i2vgen-fuzz-") as folder:
            path = Path(folder) / "footage" / f"{number}-{Path(name).name}"
            path.parent.mkdir()
            path.write_bytes(data)
            before = len(found.faults)
            outcome = try_file(path, Path(folder), found)
        found.outcomes[outcome] += 1
        if keep and (len(found.faults) > before or outcome == "decoder_died"):
            (keep / path.name).write_bytes(data)
    return found


def try_file(path: Path, scratch: Path, found: Found) -> str:
    """`ok` or the reason; whatever must not be goes to `found.faults`."""
    started_s = time.monotonic()
    try:
        with our_faults(found.faults, path.name):
            outcome = _outcome(path, scratch, found)
    except Exception as error:
        outcome = f"raised {type(error).__name__}"
        found.faults.append(f"{path.name}: {error!r}")
    took_s = time.monotonic() - started_s
    found.slowest_s = max(found.slowest_s, took_s)
    if took_s > CALLS_PER_FILE * SANDBOX.limits(path.stat().st_size).wall_s + GRACE_S:
        found.faults.append(f"{path.name}: {took_s:.0f} s")
    if outcome != "ok" and outcome not in REASONS:
        found.faults.append(f"{path.name}: {outcome} is no reason")
    return outcome


def _outcome(path: Path, scratch: Path, found: Found) -> str:
    (entry,) = list_footage(str(path.parent))
    source = identify(entry, sandbox=SANDBOX)
    seen = watch_source(source, str(path), WATCH)
    if bool(seen.clips) != (seen.source.status == "ok"):
        found.faults.append(f"{path.name}: {seen.source.status} with {len(seen.clips)} clips")
    if seen.source.status != "ok":
        return str(seen.source.reason)
    for cut in cut_all(path, scratch, seen.clips[:2], CUTS):
        failed = cut.failure.reason if cut.failure else ""
        found.cuts[failed or "ok"] += 1
        if failed and failed not in REASONS:
            found.faults.append(f"{path.name}: cut: {failed} is no reason")
    return "ok"


@contextmanager
def our_faults(faults: list[str], name: str) -> Iterator[None]:
    """A stage logs an error when it is at fault itself, and only then."""

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            faults.append(f"{name}: {record.getMessage()[-1500:]}")

    handler = Kept(logging.ERROR)
    logging.getLogger("pipelines").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("pipelines").removeHandler(handler)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz.media", description=__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--keep", type=Path)
    given = parser.parse_args(argv)
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="i2vgen-corpus-") as folder:
        corpus = media_corpus(Path(folder), with_world=True)
    found = fuzz_media(corpus, given.files, given.seed, 60 * given.minutes, keep=given.keep)
    print(json.dumps({"seed": given.seed, "corpus": len(corpus), **found.to_json()}, indent=1))
    return bool(found.faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
