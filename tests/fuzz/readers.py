"""Mutated sidecars, tables, shards, latents and weights through whatever reads them.

    python -m tests.fuzz.readers --files 5000 --seed 0 --minutes 10

A reader gives an answer or raises what it says it raises; prints counts by outcome, and the rest as
`faults`.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import save_file

from model.weights import WeightsError, read_tensors
from pipelines.config import RequestError
from pipelines.curation.ingest import identify, list_footage
from pipelines.curation.rights.table import read_table
from pipelines.lineage.takedown_list import read_list
from pipelines.records import Clip, to_table
from pipelines.shard_reader import member_bytes, open_shard
from pipelines.storage import Store
from pipelines.training.latents.packs import DamagedPack, map_safetensors
from tests.fuzz.mutations import mutated
from tests.pipelines.curation.clips_of import a_clip

TOO_SLOW_S = 20.0


@dataclass(frozen=True)
class Reader:
    """A whole file, what reads it, and what that may raise."""

    name: str
    whole: bytes
    read: Callable[[Path], object]
    raises: tuple[type[Exception], ...]


def readers(folder: Path) -> list[Reader]:
    return [
        Reader("film.mp4.json", _sidecar(), _read_beside, ()),
        Reader("rights.csv", _csv(), lambda path: read_table(str(path)), (RequestError,)),
        Reader("list.txt", _list(), lambda path: read_list(str(path)), (RequestError,)),
        Reader("shard.tar", _shard(), _read_members, (tarfile.TarError, KeyError)),
        Reader(
            "clips.parquet", _parquet(folder), _read_rows, (pa.ArrowException, OSError, ValueError)
        ),
        Reader("pack.safetensors", _tensors(folder), _read_arrays, (DamagedPack,)),
        Reader("unet.safetensors", _tensors(folder), _read_weights, (WeightsError,)),
        Reader("unet.pth", _pickle(), _read_weights, (WeightsError,)),
    ]


def fuzz_readers(count: int, seed: int, seconds: float) -> dict[str, Any]:
    """Tries `count` mutated files, or as many as the time allows."""
    outcomes: dict[str, Counter[str]] = {}
    faults: list[str] = []
    started_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="i2vgen-fuzz-") as name:
        known = readers(Path(name))
        others = [reader.whole for reader in known]
        for number in range(count):
            if time.monotonic() - started_s > seconds:
                break
            reader = known[number % len(known)]
            rng = np.random.default_rng([seed, number])
            path = Path(name) / str(number) / reader.name
            path.parent.mkdir()
            path.write_bytes(mutated(reader.whole, others, rng))
            outcome = _outcome(reader, path, number, faults)
            outcomes.setdefault(reader.name, Counter())[outcome] += 1
            path.unlink()
    return {
        "files": sum(sum(c.values()) for c in outcomes.values()),
        "outcomes": {name: dict(c.most_common()) for name, c in outcomes.items()},
        "faults": faults,
        "seconds": round(time.monotonic() - started_s),
    }


def _outcome(reader: Reader, path: Path, number: int, faults: list[str]) -> str:
    started_s = time.monotonic()
    try:
        reader.read(path)
        outcome = "read"
    except reader.raises as error:
        outcome = type(error).__name__
        if "\n" in str(error) and isinstance(error, RequestError):
            faults.append(f"{number} {reader.name}: more than one line: {error}")
    except Exception as error:
        outcome = f"raised {type(error).__name__}"
        faults.append(f"{number} {reader.name}: {error!r:.300}")
    if time.monotonic() - started_s > TOO_SLOW_S:
        faults.append(f"{number} {reader.name}: {time.monotonic() - started_s:.0f} s")
    return outcome


# --- the files ---------------------------------------------------------------------------------


def _sidecar() -> bytes:
    stated = {"license": "CC-BY-4.0", "consent": "yes", "more": [{"a": 1.5}, None, "\u00e9"]}
    return json.dumps(stated, indent=1).encode()


def _csv() -> bytes:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["file", "license", "consent"])
    rows.writerows([f"film-{n}*.mp4", "CC0", "no, never" if n % 2 else "yes"] for n in range(20))
    return text.getvalue().encode()


def _list() -> bytes:
    return ("# names\n" + "\n".join(f"{n:032x}" for n in range(20)) + "\nfilm é.mp4\n").encode()


def _shard() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number in range(4):
            for ending in ("json", "mp4", "txt"):
                data = f"{number} {ending} ".encode() * 40
                member = tarfile.TarInfo(f"{number:032x}.{ending}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _parquet(folder: Path) -> bytes:
    clips = [a_clip(n, caption=f"caption {n}", embedding=[0.5] * 8) for n in range(50)]
    Store(str(folder)).write_table("clips.parquet", to_table(Clip, clips))
    return (folder / "clips.parquet").read_bytes()


def _tensors(folder: Path) -> bytes:
    torch.manual_seed(0)
    made = {"latents_NCHW": torch.randn(6, 4, 4, 6).half(), "text_KLD": torch.randn(3, 5, 8)}
    save_file(made, folder / "made.safetensors")
    return (folder / "made.safetensors").read_bytes()


def _pickle() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a.weight": torch.ones(3, 4), "b": torch.zeros(5)}, buffer)
    return buffer.getvalue()


# --- what reads them ---------------------------------------------------------------------------


def _read_beside(path: Path) -> object:
    film = path.parent / "film.mp4"
    film.write_bytes(b"not a film")
    return [identify(found) for found in list_footage(str(path.parent))]


def _read_members(path: Path) -> object:
    with open_shard(path) as tar:
        return [member_bytes(tar, f"{n:032x}.mp4") for n in range(4)]


def _read_rows(path: Path) -> object:
    return Store(str(path.parent)).read_table(path.name).to_pylist()


def _read_arrays(path: Path) -> object:
    return {name: array.sum() for name, array in map_safetensors(path).items()}


def _read_weights(path: Path) -> object:
    return read_tensors(path)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz.readers", description=__doc__)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=10)
    given = parser.parse_args(argv)
    found = fuzz_readers(given.files, given.seed, 60 * given.minutes)
    print(json.dumps({"seed": given.seed, **found}, indent=1))
    return bool(found["faults"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
