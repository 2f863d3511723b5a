"""Animates clips of a dataset with a trained cascade and measures what comes out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipelines.config import RequestError, to_plain
from pipelines.evaluation.clips import choose_clips
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.measure import MEASURES, summarise
from pipelines.evaluation.plots import plot_summary
from pipelines.lineage.tracking import Run, Tracker, job_identity
from pipelines.records import Clip, from_row
from pipelines.storage import Store
from pipelines.storage.single_files import filled_folder
from pipelines.training.checkpoints.checkpoint import Checkpoint, open_checkpoint
from pipelines.training.latents.encode_plan import checked_dataset

RESULT_FILE, PLOT_FILE = "evaluation.json", "evaluation.png"


@dataclass(frozen=True)
class Prepared:
    """A checked request, with the clips that will be animated. `refine` is None for the base
    stage alone, `i3d` the network of the Frechet video distance or None."""

    config: EvaluateConfig
    base: Checkpoint
    refine: Checkpoint | None
    dataset: Store
    clips: list[Clip]
    seen: frozenset[str]
    i3d: Any

    @property
    def checkpoints(self) -> list[Checkpoint]:
        return [self.base] + ([self.refine] if self.refine else [])


def prepare(config: EvaluateConfig) -> Prepared:
    """Raises RequestError for whatever is wrong before a network is loaded."""
    from pipelines.evaluation.sampling import CONDITIONS

    if unknown := sorted(set(config.withhold) - set(CONDITIONS)):
        raise RequestError(f"--withhold {unknown[0]}: there are {', '.join(CONDITIONS)}")
    base = open_checkpoint(config.base, "base", "--base")
    refine = None
    if config.refine.lower() != "none":
        refine = open_checkpoint(config.refine, "refine", "--refine")
    elif config.refine_truth:
        raise RequestError("--refine-truth: needs a refinement checkpoint, --refine is none")
    dataset = Store.open(config.dataset)
    checked_dataset(dataset)
    seen = clips_seen(base) | (clips_seen(refine) if refine else frozenset())
    rows = dataset.read_table("clips.parquet").drop_columns(["embedding"]).to_pylist()
    clips = [from_row(Clip, row) for row in rows]
    clips = choose_clips(clips, seen, config.clips, config.only_moving)
    Store.open(config.out).check_writable()
    return Prepared(config, base, refine, dataset, clips, seen, _open_i3d(config.i3d))


def _open_i3d(path: str) -> Any:
    if not path:
        return None
    from pipelines.evaluation.fvd import open_i3d

    return open_i3d(path)


def clips_seen(checkpoint: Checkpoint) -> frozenset[str]:
    """Ids of every clip that the checkpoint and those before it in its folder were trained on."""
    folder, _, name = checkpoint.store.uri.rpartition("/")
    steps = Store(folder)
    ledgers = [f for f in steps.list_files() if f.endswith("/lineage.parquet")]
    ids: set[str] = set()
    for ledger in ledgers:
        if ledger.split("/")[0] <= name:
            ids.update(steps.read_table(ledger, columns=["clip_id"])["clip_id"].to_pylist())
    return frozenset(ids)


def evaluate(prepared: Prepared) -> dict[str, Any]:
    """Writes evaluation.json, evaluation.png and the videos; records the run; returns the JSON
    that the job prints."""
    config, started_s = prepared.config, time.monotonic()
    tracker = Tracker.open(config.tracking)
    name = "evaluate " + " + ".join(checkpoint.name for checkpoint in prepared.checkpoints)
    digests = _digests(prepared)
    identity = job_identity(config.out, config, _dataset_digest(prepared), *digests.values())
    with (
        tracker.run("evaluate", name, to_plain(config), _tags(prepared), identity=identity) as run,
        filled_folder(config.out, last=(RESULT_FILE,)) as out,
    ):
        _log_inputs(prepared, run)
        result = _result(replace(prepared, config=replace(config, out=str(out))))
        rows, summary = result["videos"], result["summary"]
        (out / RESULT_FILE).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        plot_summary([row["measures"] for row in rows], summary, out / PLOT_FILE)
        figures = {n: values["mean"] for n, values in summary.items()}
        if "frechet_video_distance" in result:
            figures["frechet_video_distance"] = result["frechet_video_distance"]["distance"]
        run.log_metrics(figures, step=0)
        for path in sorted(p for p in out.iterdir() if p.suffix in (".json", ".png", ".mp4")):
            run.log_artifact(path, "evaluation")
    return {
        "evaluation": Store.open(config.out).path(RESULT_FILE),
        "videos": len(rows),
        **{n: round(value, 4) for n, value in figures.items()},
        "tracking_uri": tracker.uri,
        "run_id": run.run_id,
        "seconds": round(time.monotonic() - started_s, 1),
    }


def _result(prepared: Prepared) -> dict[str, Any]:
    """What evaluation.json says."""
    from pipelines.evaluation.animate import animate

    made = animate(prepared)
    summary = summarise([video.row["measures"] for video in made])
    result = {
        "checkpoints": _digests(prepared),
        "dataset": _dataset_digest(prepared),
        "unseen_clips": sum(not video.row["seen_in_training"] for video in made),
        "withheld": list(prepared.config.withhold),
        "summary": summary,
        "meaning": {name: MEASURES[name] for name in summary},
    }
    if prepared.i3d is not None:
        result["frechet_video_distance"] = _frechet(prepared, made)
    return {**result, "videos": [video.row for video in made]}


def _frechet(prepared: Prepared, made: Sequence[Any]) -> dict[str, Any]:
    """Between the generated videos and the true clips of those that are long enough."""
    from pipelines.evaluation.fvd import frechet_distance, video_vectors

    pairs = [video for video in made if video.truth_FHWC is not None]
    true = {video.row["clip_id"]: video.truth_FHWC for video in pairs}
    if len(true) < 2:
        raise RequestError("--i3d: needs two clips or more that are as long as the videos")
    generated_ND = video_vectors(prepared.i3d, [video.final_FHWC for video in pairs])
    true_ND = video_vectors(prepared.i3d, list(true.values()))
    return {
        "distance": frechet_distance(generated_ND, true_ND),
        "videos": len(generated_ND),
        "true_clips": len(true_ND),
        "dimensions": generated_ND.shape[1],
    }


def _digests(prepared: Prepared) -> dict[str, str]:
    return {c.header.stage: c.header.digest for c in prepared.checkpoints}


def _dataset_digest(prepared: Prepared) -> str:
    return str(prepared.dataset.read_json("dataset.json")["digest"])


def _tags(prepared: Prepared) -> dict[str, str]:
    digests = {f"{stage}.digest": digest for stage, digest in _digests(prepared).items()}
    last = prepared.checkpoints[-1].header
    return {
        **digests,
        "checkpoint.digest": last.digest,
        "latents.digest": last.latents["digest"],
        "dataset.digest": _dataset_digest(prepared),
        "dataset.uri": prepared.dataset.uri,
    }


def _log_inputs(prepared: Prepared, run: Run) -> None:
    run.log_input_dataset(
        "dataset", prepared.dataset.uri, _dataset_digest(prepared), context="evaluation"
    )
    for checkpoint in prepared.checkpoints:
        run.log_input_model(checkpoint.header.digest)
