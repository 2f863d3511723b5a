"""What must hold after any disturbance, as a list of what does not: a line each, [] when all does.

Every test that disturbs a job to its end closes here. The outputs are looked at from outside,
through their files, not through the code that wrote them, but for what wholeness.py already reads.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipelines.config import RequestError, TrackingConfig
from pipelines.lineage.manifest import read_dataset
from pipelines.lineage.tracking import Tracker
from pipelines.lineage.wholeness import check_dataset
from pipelines.records import REASONS
from pipelines.storage.durable_files import TEMPORARY_PREFIX

Row = dict[str, Any]

OF_A_DATASET = {"dataset.json", "sources.parquet", "clips.parquet", "shards.parquet", "shards",
                "report.html", "origin.json", "tombstones.parquet"}  # fmt: skip
OF_LATENTS = {"latents.json", "index.parquet", "packs.parquet", "packs", "_work"}
SAME_BYTES = ("dataset.json", "sources.parquet", "clips.parquet", "shards.parquet")
KEPT_OF_OLD_CHECKPOINTS = {"checkpoint.json", "lineage.parquet", "README.md"}
STATE = ("unet/diffusion_pytorch_model.safetensors", "ema/diffusion_pytorch_model.safetensors",
         "trainer.safetensors", "lineage.parquet")  # fmt: skip


# --- a dataset -----------------------------------------------------------------------------------


def dataset_violations(dataset: Path, footage: Path, undisturbed: Path | None = None) -> list[str]:
    """inputs = ok + failed; shots tile their source; every kept clip in one shard; hashes, counts
    and digest; nothing else in the folder; the bytes of an undisturbed run."""
    try:
        manifest = read_dataset(str(dataset)).manifest
        if damaged := list(_wrong_hashes(dataset, manifest.get("files", {}))):
            return damaged
        found = check_dataset(str(dataset))
    except RequestError as error:
        return [str(error)]
    sources, clips = (
        pq.read_table(dataset / f"{n}.parquet").to_pylist() for n in ("sources", "clips")
    )
    found += _lost_inputs(sources, footage)
    found += _untiled(sources, clips)
    found += _miscounted(manifest["counts"], sources, clips)
    found += strangers(dataset, OF_A_DATASET)
    if undisturbed is not None:
        found += differences(dataset, undisturbed, [*SAME_BYTES, *_shards(dataset, undisturbed)])
    return found


def _lost_inputs(sources: list[Row], footage: Path) -> Iterator[str]:
    files = Counter(str(p.relative_to(footage)) for p in footage.rglob("*") if not p.is_dir())
    named = Counter(uri for row in sources for uri in row["uris"])
    for name in sorted(files.keys() | named.keys()):
        if files[name] != named[name]:
            yield f"sources.parquet: {name} is named {named[name]} times, not {files[name]}"
    for row in sources:
        good = row["reason"] is None if row["status"] == "ok" else row["reason"] in REASONS
        if row["status"] not in ("ok", "failed") or not good:
            yield f"sources.parquet: {row['source_id']} is {row['status']}, {row['reason']}"


def _untiled(sources: list[Row], clips: list[Row]) -> Iterator[str]:
    of_source: dict[str, list[Row]] = {row["source_id"]: [] for row in sources}
    for row in clips:
        of_source.setdefault(row["source_id"], []).append(row)
        kept = row["verdict"] == "kept"
        if kept != (row["shard"] is not None) or kept == (row["reason"] is not None):
            yield f"clips.parquet: {row['clip_id']} is {row['verdict']}, {row['reason']}"
    for source in sources:
        rows = sorted(of_source[source["source_id"]], key=lambda r: r["shot_index"])
        if source["status"] != "ok":
            if rows:
                yield f"clips.parquet: {source['source_id']} failed, and has {len(rows)} clips"
            continue
        edges = [0, *(r["end_frame"] for r in rows)]
        is_tiled = [r["start_frame"] for r in rows] == edges[:-1] and bool(rows)
        if not is_tiled or (rows[0]["kind"] == "video" and edges[-1] != source["num_frames"]):
            yield f"clips.parquet: the shots of {source['source_id']} do not tile it"


def _miscounted(counts: Row, sources: list[Row], clips: list[Row]) -> Iterator[str]:
    verdicts = Counter(row["verdict"] for row in clips)
    expected = {
        "sources": len(sources),
        "sources_failed": sum(row["status"] != "ok" for row in sources),
        "clips": len(clips),
        "kept": verdicts["kept"],
        "dropped": verdicts["dropped"],
    }
    for name, number in expected.items():
        if counts[name] != number:
            yield f"dataset.json: {name} is {counts[name]}, the tables say {number}"


def _shards(*datasets: Path) -> list[str]:
    return sorted({f"shards/{p.name}" for d in datasets for p in (d / "shards").glob("*")})


# --- latents -------------------------------------------------------------------------------------


def latents_violations(latents: Path, dataset: Path, undisturbed: Path | None = None) -> list[str]:
    """Every clip that is wanted in one pack; packs, rows and hashes fit; nothing else there."""
    if not (latents / "latents.json").is_file():
        return [f"{latents}: no latents.json"]
    header = _json(latents / "latents.json")
    index, packs = (pq.read_table(latents / f"{n}.parquet").to_pylist() for n in ("index", "packs"))
    found = list(_wrong_hashes(latents, header.get("files", {})))
    found += _wrong_hashes(latents, {row["pack"]: row["sha256"] for row in packs})
    if header["dataset"]["digest"] != _json(dataset / "dataset.json")["digest"]:
        found.append("latents.json: made of another dataset")
    found += _clips_without_latents(header, index, dataset)
    counted = Counter(row["pack"] for row in index)
    found += [
        f"packs.parquet: {row['pack']} holds {row['clips']} clips, not what index.parquet says"
        for row in packs
        if counted[row["pack"]] != row["clips"]
    ]
    found += strangers(latents, OF_LATENTS)
    named = {row["pack"] for row in packs}
    commits = {f"_work/{Path(pack).stem}.json" for pack in named}
    there = {
        str(p.relative_to(latents)) for f in ("packs", "_work") for p in (latents / f).rglob("*")
    }
    found += [f"{latents}/{name}: nothing names it" for name in sorted(there - named - commits)]
    if undisturbed is not None:
        same = ["latents.json", "index.parquet", "packs.parquet", *sorted(named)]
        found += differences(latents, undisturbed, same)
    return found


def _clips_without_latents(header: Row, index: list[Row], dataset: Path) -> Iterator[str]:
    tier = {"base": "base", "refine": "high_res"}[header["stage"]]
    clips = pq.read_table(dataset / "clips.parquet").to_pylist()
    wanted = Counter(r["clip_id"] for r in clips if r["verdict"] == "kept" and tier in r["tiers"])
    encoded = Counter(row["clip_id"] for row in index)
    for clip in sorted(wanted.keys() | encoded.keys()):
        if wanted[clip] != encoded[clip]:
            yield f"index.parquet: clip {clip} is there {encoded[clip]} times, not {wanted[clip]}"


# --- checkpoints ---------------------------------------------------------------------------------


def checkpoint_violations(
    checkpoints: Path, step: int | None = None, undisturbed: Path | None = None
) -> list[str]:
    """Every checkpoint verifies, or is an old one of which lineage is kept; latest.json names the
    newest; each one's parent is there. `step`: the last there must be."""
    if not (checkpoints / "latest.json").is_file():
        return [f"{checkpoints}: no latest.json"]
    latest = _json(checkpoints / "latest.json")
    names = sorted(p.name for p in checkpoints.glob("step-*"))
    found = list(strangers(checkpoints, {"latest.json", *names}))
    for name in names:
        found += _checkpoint(checkpoints, name, may_be_thin=name != latest["checkpoint"])
    if names[-1:] != [latest["checkpoint"]]:
        found.append(f"latest.json: names {latest['checkpoint']}, the newest is {names[-1:]}")
    if step is not None and latest["step"] != step:
        found.append(f"latest.json: step {latest['step']}, not {step}")
    if undisturbed is not None:
        files, expected = (_files_of_latest(folder) for folder in (checkpoints, undisturbed))
        found += [f"{name}: not that of the undisturbed run" for name in STATE
                  if files.get(name) != expected.get(name)]  # fmt: skip
    return found


def _checkpoint(checkpoints: Path, name: str, may_be_thin: bool) -> Iterator[str]:
    folder = checkpoints / name
    if not (folder / "checkpoint.json").is_file():
        yield f"{name}: no checkpoint.json"
        return
    header = _json(folder / "checkpoint.json")
    there = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    named = {"checkpoint.json", *header["files"]}
    is_thin = may_be_thin and there == KEPT_OF_OLD_CHECKPOINTS
    if there != named and not is_thin:
        yield f"{name}: holds {sorted(there ^ named)[0]}, or lacks it"
    files = {n: sha256 for n, sha256 in header["files"].items() if n in there}
    yield from (f"{name}/{line}" for line in _wrong_hashes(folder, files))
    if (parent := header["parent"]) is not None:
        place = checkpoints / parent["checkpoint"] / "checkpoint.json"
        if not place.is_file() or _json(place)["digest"] != parent["digest"]:
            yield f"{name}: its parent {parent['checkpoint']} is not there"


def _files_of_latest(checkpoints: Path) -> dict[str, str]:
    name = _json(checkpoints / "latest.json")["checkpoint"]
    return dict(_json(checkpoints / name / "checkpoint.json")["files"])


# --- runs, and files in general ------------------------------------------------------------------


def run_violations(tracking_uri: str, outputs: Iterable[Path]) -> list[str]:
    """Every digest that a recorded run names is that of an output that exists."""
    known = {digest for folder in outputs for digest in _digests_below(folder)}
    found = []
    for run in Tracker.open(TrackingConfig(uri=tracking_uri)).runs():
        found += [
            f"run {run.run_id} ({run.kind}): {tag} {digest} is of nothing that exists"
            for tag, digest in sorted(run.tags.items())
            if tag.endswith(".digest") and digest not in known
        ]
    return found


def _digests_below(folder: Path) -> Iterator[str]:
    for name in ("dataset.json", "latents.json", "checkpoint.json"):
        for file in [folder / name, *folder.glob(f"*/{name}")]:
            if file.is_file():
                yield str(_json(file)["digest"])


def strangers(folder: Path, expected: set[str]) -> Iterator[str]:
    """Files and folders that nothing names; half-written ones, however deep."""
    for path in sorted(folder.iterdir()):
        if path.name not in expected:
            yield f"{path}: nothing names it"
    for path in sorted(folder.rglob(f"{TEMPORARY_PREFIX}*")):
        if path.parent != folder:
            yield f"{path}: half-written"


def differences(folder: Path, undisturbed: Path, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        pair = [(place / name).read_bytes() if (place / name).is_file() else None
                for place in (folder, undisturbed)]  # fmt: skip
        if pair[0] is None or pair[0] != pair[1]:
            yield f"{folder}/{name}: not the bytes of the undisturbed run"


def _wrong_hashes(folder: Path, files: dict[str, str]) -> Iterator[str]:
    for name, sha256 in files.items():
        path = folder / name
        if not path.is_file():
            yield f"{name}: missing"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            yield f"{name}: not the bytes that were named"


def _json(path: Path) -> Row:
    return dict(json.loads(path.read_bytes()))
