"""The past of a dataset, a checkpoint or a generated video: all that it was made from."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from pipelines.config import RequestError
from pipelines.lineage import manifest
from pipelines.lineage.catalog import Catalog, Entry, base_of, checkpoints_of, name_of
from pipelines.lineage.dataset_counts import counts_of
from pipelines.lineage.seen import what_was_seen


def checkpoint_entry(catalog: Catalog, uri: str) -> Entry:
    """A step's directory, or the newest step of a checkpoints folder. Raises RequestError."""
    found = catalog.at("checkpoint", uri)
    if found is None:
        inside = [e for e in catalog.of("checkpoint") if e.folder == uri.rstrip("/")]
        found = max(inside, key=lambda e: e.step, default=None)
    if found is None:
        raise RequestError(f"checkpoint {uri}: no checkpoint.json there or one step below")
    return found


def trace_checkpoint(
    catalog: Catalog, checkpoint: Entry, shown: int | None = None
) -> dict[str, Any]:
    """What a checkpoint learned from: itself first, then the base checkpoints it grew from.

    `shown` limits the rows of `sources` in each stage to those it saw most; counts cover all.
    """
    line = catalog.ancestry(checkpoint)
    lost = base_of(line[-1]) if catalog.find("checkpoint", base_of(line[-1])) is None else None
    stages = [_past_of(catalog, stage, shown) for stage in line]
    return {"stages": stages, "base_not_found": lost}


def _past_of(catalog: Catalog, checkpoint: Entry, shown: int | None) -> dict[str, Any]:
    header = checkpoint.header
    history = catalog.history(checkpoint)
    dataset = catalog.find("dataset", header.get("dataset"))
    return {
        **name_of(checkpoint),
        "stage": header.get("stage"),
        "step": checkpoint.step,
        "finished": header.get("finished"),
        "samples_claimed": header.get("samples_seen"),
        **what_was_seen(catalog, history, dataset, shown),
        "history": [entry.step for entry in reversed(history)],
        "history_complete": history[-1].header.get("parent") is None,
        "latents": header.get("latents"),
        "dataset": header.get("dataset"),
        "dataset_found": dataset.uri if dataset else None,
        "base": header.get("base"),
        "config": header.get("config"),
    }


def video_entry(catalog: Catalog, path: str) -> Entry:
    """The record of a generated video: the JSON beside it, else the file's own metadata.

    Raises RequestError when neither says how it was made.
    """
    if found := catalog.at("video", path):
        return found
    header = recorded_in_file(path)
    if not header:
        raise RequestError(
            f"video {path}: nothing says how it was made (no {Path(path).stem}.json with its "
            "checkpoints beside it, no record in its metadata)"
        )
    return Entry("video", path, header)


def recorded_in_file(path: str) -> dict[str, Any]:
    """The JSON object with checkpoints that a tag of the video file holds; {} where none does."""
    from pipelines.media.errors import MediaError
    from pipelines.media.opening import opened_video

    try:
        with opened_video(path) as (container, _):
            tags = list(container.metadata.values())
    except (MediaError, OSError):
        return {}
    for text in tags:
        with contextlib.suppress(ValueError):
            header = json.loads(text)
            if isinstance(header, dict) and checkpoints_of(Entry("video", path, header)):
                return header
    return {}


def trace_video(catalog: Catalog, video: Entry, shown: int | None = None) -> dict[str, Any]:
    """The prompt, seed and settings that made a video, its checkpoints and their whole past;
    `shown` as in `trace_checkpoint`."""
    checkpoints: dict[str, Any] = {}
    stages: dict[str, Any] = {}
    for role, reference in checkpoints_of(video).items():
        found = catalog.find("checkpoint", reference)
        checkpoints[role] = {**reference, "uri": found.uri if found else None}
        if found:
            past = trace_checkpoint(catalog, found, shown)["stages"]
            stages.update((stage["uri"], stage) for stage in past)
    made_with = {**video.header.get("settings", {}), **video.header}
    for name in ("settings", "checkpoints"):
        made_with.pop(name, None)
    return {
        "uri": video.uri,
        "made_with": made_with,
        "checkpoints": checkpoints,
        "stages": list(stages.values()),
    }


def trace_dataset(catalog: Catalog, dataset: manifest.Dataset) -> dict[str, Any]:
    """What a dataset holds, the version it came from, and what was made from it."""
    latents = [e for e in catalog.of("latents") if _comes_from(e, dataset)]
    checkpoints = [e for e in catalog.of("checkpoint") if _comes_from(e, dataset)]
    return {
        "uri": dataset.uri,
        "digest": dataset.digest,
        "parent_digest": dataset.parent_digest,
        **counts_of(catalog, dataset),
        "latents": [{**name_of(e), "stage": e.header.get("stage")} for e in latents],
        "checkpoints": [
            {**name_of(e), "stage": e.header.get("stage"), "step": e.step} for e in checkpoints
        ],
    }


def _comes_from(entry: Entry, dataset: manifest.Dataset) -> bool:
    return bool((entry.header.get("dataset") or {}).get("digest") == dataset.digest)
