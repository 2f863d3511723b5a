"""Jobs that record, for tests: in this process, or as one of its own.

python -m tests.pipelines.lineage.tracked.tracking_jobs one TRACKING_URI NAME
python -m tests.pipelines.lineage.tracked.tracking_jobs project TRACKING_URI PROJECT
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.config import ClusterConfig, TrackingConfig
from pipelines.lineage.tracking import Run, Tracker

DIGEST, OTHER = "ab" * 16, "cd" * 16
DATASET, LATENTS, BASE, REFINE = ("da" * 16, "1a" * 16, "ba" * 16, "fe" * 16)


def one_run(tracker: Tracker, name: str) -> Run:
    with tracker.run("curate", name, {"who": name}, {}) as run:
        for step in range(20):
            run.log_metrics({"clips": step}, step)
            run.flush()
    return run


def small_project(tracker: Tracker, between: Callable[[str], None] = lambda job: None) -> list[Run]:
    """What jobs of a whole cascade record. `between` is called in the middle of each job."""
    return [
        curate(tracker, between),
        train(tracker, "base", None, BASE, between),
        train(tracker, "refine", BASE, REFINE, between),
        generate(tracker, between),
    ]


def curate(tracker: Tracker, between: Callable[[str], None]) -> Run:
    params = {"footage": "/films", "shots": {"threshold": 0.5}}
    with tracker.run("curate", "curate", params, {}, identity="curate") as run:
        between("curate")
        run.log_input_dataset("set", "/data/set", DATASET, "output")
        run.set_tags({"dataset.digest": DATASET, "dataset.uri": "/data/set"})
        run.log_metrics({"kept": 3, "dropped": 4}, 0)
        with tempfile.TemporaryDirectory() as folder:
            page = Path(folder) / "report.html"
            page.write_text("<h1>report</h1>")
            run.log_artifact(page)
    return run


def train(
    tracker: Tracker, stage: str, start: str | None, made: str, between: Callable[[str], None]
) -> Run:
    """Two phases, recorded by a worker that joins the job's runs."""
    name, tags = f"train {stage}", {"dataset.digest": DATASET, "latents.digest": LATENTS}
    params = {"steps": 12, "stage": stage}
    with tracker.run(f"train_{stage}", name, params, tags, identity=name) as run:
        run.log_input_dataset("latents", "/data/latents", LATENTS, "training")
        run.log_input_model(start)
        run.log_dict(params, "config.json")
        for phase in (1, 2):
            one = f"{name} phase {phase}"
            with tracker.run("phase", one, {"n": phase}, {}, run.run_id, one) as part:
                for step in worker_steps(tracker, run, part, phase):
                    if step == 8:
                        between(name)
        run.log_output_model(f"{stage} step-12", f"/data/{stage}/step-12", made, 12, {"step": 12})
        run.set_tags({"checkpoint.digest": made})
    return run


def worker_steps(tracker: Tracker, run: Run, part: Run, phase: int) -> Iterator[int]:
    """A worker joins the job's runs and records six steps."""
    with tracker.resume(run.run_id) as worker, tracker.resume(part.run_id) as worker_part:
        for step in range(6 * (phase - 1) + 1, 6 * phase + 1):
            for record in (worker, worker_part):
                record.log_metrics({"loss": 1 / step, "odd": float("inf")}, step)
            yield step


def generate(tracker: Tracker, between: Callable[[str], None]) -> Run:
    with tracker.run("generate", "generate", {"seed": 7}, {}, identity="generate") as run:
        run.log_input_model(BASE)
        run.log_input_model(REFINE)
        between("generate")
        run.set_tags({"video.uri": "/data/video.mp4", "base.digest": BASE})
        with tempfile.TemporaryDirectory() as folder:
            video = Path(folder) / "video.mp4"
            video.write_bytes(b"pictures" * 1000)
            run.log_artifact(video, "video")
    return run


def record_a_past(uri: str, project: str) -> tuple[Tracker, Run, Run, str]:
    """A base training and a refinement that starts from its checkpoint."""
    tracker = Tracker.open(TrackingConfig(uri, project))
    params = {"cluster": ClusterConfig(num_cpus=2), "prompt": "x" * 7000, "sizes": (64, 112)}
    with tracker.run("train_base", "base", params, {"dataset.digest": DIGEST}) as base:
        for step in range(1, 1201):
            base.log_metrics({"loss": 1 / step, "lr/unet": 1e-4}, step)
        base.log_input_dataset("dataset", "/data/set", DIGEST, "training")
        base.log_input_dataset("dataset", "/data/set", DIGEST, "validation")
        base.log_dict({"config": {"seed": 0}}, "config.json")
        base.log_output_model(
            "base: step.1200",
            "/data/checkpoints/step-1200",
            OTHER,
            1200,
            {"width_px": 112},
            {"dataset.digest": DIGEST},
        )
    with tracker.run("train_refine", "refine", {}, {}, parent_run_id=base.run_id) as refine:
        refine.log_input_model(OTHER)
        refine.log_input_model(model_id := tracker.find_model(OTHER))
    assert model_id is not None
    return tracker, base, refine, model_id


if __name__ == "__main__":
    what, uri, name = sys.argv[1:]
    if what == "one":
        print(one_run(Tracker.open(TrackingConfig(uri)), name).run_id)
    else:
        small_project(Tracker.open(TrackingConfig(uri, name)))
