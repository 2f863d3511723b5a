"""Animates clips of a dataset with a trained cascade and measures what comes out."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import RequestError, to_plain
from pipelines.evaluation.clips import choose_clips
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.measure import MEASURES, measure_video, summarise
from pipelines.evaluation.plots import plot_summary
from pipelines.lineage.tracking import Run, Tracker
from pipelines.media import read_clip_frames, write_video
from pipelines.progress import Progress
from pipelines.records import Clip, from_row
from pipelines.shard_reader import read_sample
from pipelines.storage import Store
from pipelines.training.checkpoint import Checkpoint, open_checkpoint
from pipelines.training.generate import even_sized, load_cascade

RESULT_FILE, PLOT_FILE = "evaluation.json", "evaluation.png"


@dataclass(frozen=True)
class Prepared:
    """A checked request, with the clips that will be animated."""

    config: EvaluateConfig
    base: Checkpoint
    refine: Checkpoint
    dataset: Store
    clips: list[Clip]
    seen: frozenset[str]


def prepare(config: EvaluateConfig) -> Prepared:
    """Raises RequestError for whatever is wrong before a network is loaded."""
    base = open_checkpoint(config.base, "base", "--base")
    refine = open_checkpoint(config.refine, "refine", "--refine")
    dataset = Store.open(config.dataset)
    if not dataset.exists("dataset.json"):
        raise RequestError(f"--dataset {config.dataset}: no complete dataset (no dataset.json)")
    seen = clips_seen(base) | clips_seen(refine)
    rows = dataset.read_table("clips.parquet").drop_columns(["embedding"]).to_pylist()
    clips = choose_clips([from_row(Clip, row) for row in rows], seen, config.clips)
    Store.open(config.out).check_writable()
    return Prepared(config, base, refine, dataset, clips, seen)


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
    name = f"evaluate {prepared.base.name} + {prepared.refine.name}"
    with tracker.run("evaluate", name, to_plain(config), _tags(prepared)) as run:
        _log_inputs(prepared, tracker, run)
        rows = _measure_all(prepared)
        summary = summarise([row["measures"] for row in rows])
        result = {
            "checkpoints": _digests(prepared),
            "dataset": _dataset_digest(prepared),
            "unseen_clips": sum(not row["seen_in_training"] for row in rows),
            "summary": summary,
            "meaning": MEASURES,
            "videos": rows,
        }
        out = Path(config.out)
        (out / RESULT_FILE).write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
        plot_summary([row["measures"] for row in rows], summary, out / PLOT_FILE)
        run.log_metrics({n: figures["mean"] for n, figures in summary.items()}, step=0)
        for path in sorted(p for p in out.iterdir() if p.suffix in (".json", ".png", ".mp4")):
            run.log_artifact(path, "evaluation")
    return {
        "evaluation": str(out / RESULT_FILE),
        "videos": len(rows),
        **{n: round(figures["mean"], 4) for n, figures in summary.items()},
        "tracking_uri": tracker.uri,
        "seconds": round(time.monotonic() - started_s, 1),
    }


def _measure_all(prepared: Prepared) -> list[dict[str, Any]]:
    import torch

    from model.cascade import fit_image

    config = prepared.config
    torch.set_num_threads(config.threads)
    cascade, preset = load_cascade(prepared.base, prepared.refine, config.device)
    rows = []
    with Progress(len(prepared.clips) * config.seeds, "videos", "evaluating") as bar:
        for clip in prepared.clips:
            image_HWC = first_frame(prepared.dataset, clip)
            fitted_HWC = fit_image(image_HWC, cascade.base_width_px, cascade.base_height_px)
            for seed in range(config.seed, config.seed + config.seeds):
                base_FHWC, final_FHWC = cascade.generate(
                    image_HWC,
                    clip.caption or "",
                    clip.short_caption or clip.caption,
                    seed=seed,
                    num_frames=config.frames,
                    fps=config.fps,
                    base_steps=config.base_steps,
                    refine_steps=config.refine_steps,
                    guidance_base=preset.base_sampling.guidance,
                    guidance_refine=preset.refine_sampling.guidance,
                    show_bar=False,
                )
                video = Path(config.out) / f"{clip.clip_id}-seed{seed}.mp4"
                write_video(video, even_sized(final_FHWC), fps=config.fps)
                measures = measure_video(
                    fitted_HWC, clip.caption or "", base_FHWC, final_FHWC, cascade.clip
                )
                rows.append(
                    {
                        "clip_id": clip.clip_id,
                        "caption": clip.caption,
                        "seed": seed,
                        "seen_in_training": clip.clip_id in prepared.seen,
                        "video": video.name,
                        "measures": measures,
                    }
                )
                bar.advance()
    return rows


def first_frame(dataset: Store, clip: Clip) -> np.ndarray:
    """The clip's first frame out of its shard, uint8 RGB (H, W, 3), borders removed."""
    frames_FHWC = read_clip_frames(
        read_sample(dataset, clip),
        fps=clip.fps,
        width_px=clip.crop_w_px,
        height_px=clip.crop_h_px,
        max_frames=1,
    )
    return frames_FHWC[0]


def _digests(prepared: Prepared) -> dict[str, str]:
    return {c.header.stage: c.header.digest for c in (prepared.base, prepared.refine)}


def _dataset_digest(prepared: Prepared) -> str:
    return str(prepared.dataset.read_json("dataset.json")["digest"])


def _tags(prepared: Prepared) -> dict[str, str]:
    digests = {f"{stage}.digest": digest for stage, digest in _digests(prepared).items()}
    return {**digests, "dataset.digest": _dataset_digest(prepared)}


def _log_inputs(prepared: Prepared, tracker: Tracker, run: Run) -> None:
    run.log_input_dataset(
        "dataset", prepared.dataset.uri, _dataset_digest(prepared), context="evaluation"
    )
    for checkpoint in (prepared.base, prepared.refine):
        run.log_input_model(tracker.find_model(checkpoint.header.digest))
