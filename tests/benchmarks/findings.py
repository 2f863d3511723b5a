"""The paper's findings in miniature, from nothing: footage, dataset, latents, trainings, numbers.

    python tests/benchmarks/findings.py --work /tmp/findings --out notebooks/findings

Every variant is a setting of the training jobs and goes on from the same weights ("shared": the
embedded UNet, taught the miniature's size and rate) for equally many steps. The single stage works
at the refinement's size from the start; its steps are as many as cost what the cascade's two stages
cost, counted in latent places trained on. What is already in --work is used again, so a stopped run
goes on with the same command; with --only, parts can be made in other processes.

Fixed, to make it a miniature: see findings_world.py; 4 frames at 2 frames/s, 56x32 px refined to
112x64. Scales: "full" is what notebooks/findings was made with, "tiny" shows that all of it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

from pipelines.evaluation.findings import (  # noqa: E402
    FINDINGS,
    TARGETS,
    check_findings,
    judge,
    judge_target,
)
from tests.benchmarks.findings_pictures import write_pictures  # noqa: E402
from tests.benchmarks.findings_settings import (  # noqa: E402
    BASE_PX,
    FPS,
    FRAMES,
    HALF_BATCH,
    LEARNING,
    MIXTURE,
    REFINE,
    REFINE_PX,
    SCALES,
    SHARED,
    VARIANTS,
    Scale,
    Variant,
)
from tests.benchmarks.findings_world import write_footage  # noqa: E402

RESULT_FILE = "findings.json"
RESULTS = ("checkpoints", "out", "latents", "dataset")  # a job's result is the first that it names
EVALUATED = (*VARIANTS, "single", "cascade")


class Miniature:
    """Makes each part in `work` once; a part is there when the file that names it is."""

    def __init__(self, work: Path, scale: Scale, threads: int) -> None:
        self.work, self.scale, self.threads = work.absolute(), scale, threads
        self.tracking = {"tracking.uri": f"sqlite:///{self.work}/mlflow.db"}

    # --- data ----------------------------------------------------------------------------

    def data(self) -> None:
        scale = self.scale
        for name, seed, films, shots in (
            ("train", 1, scale.films, scale.shots),
            ("held", 2, scale.held_films, scale.held_shots),
        ):
            footage = self.work / f"{name}_footage"
            if films and not (self.work / f"{name}_set" / "dataset.json").exists():
                free = scale.free_starts
                write_footage(footage, seed=seed, films=films, shots=shots, free_starts=free)
                self._curate(footage, self.work / f"{name}_set")
        self._encode("base", "train_base", BASE_PX)

    @property
    def held_set(self) -> Path:
        """What is evaluated on; at a scale without films held out, what was trained on."""
        return self.work / ("held_set" if self.scale.held_films else "train_set")

    def _curate(self, footage: Path, dataset: Path) -> None:
        """Vertical travel is .07 widths a second, which the usual threshold leaves unsaid."""
        settings = {
            "footage": footage,
            "dataset": dataset,
            "duplicates.enabled": "false",  # plain scenes look alike
            "captions.min_motion": "0.04",
            "tiers.high_res_width_px": "224",
            "tiers.high_res_height_px": "128",
        }
        self._job("curate", settings)

    def _encode(self, stage: str, name: str, base_px: tuple[int, int]) -> None:
        if (self.work / name / "latents.json").exists():
            return
        settings = {
            "dataset": self.work / "train_set",
            "latents": self.work / name,
            "stage": stage,
            "sizes.base_width_px": base_px[0],
            "sizes.base_height_px": base_px[1],
            "sizes.refine_width_px": REFINE_PX[0],
            "sizes.refine_height_px": REFINE_PX[1],
        }
        self._job("encode", settings)

    # --- networks ------------------------------------------------------------------------

    def shared(self) -> None:
        self._train("shared", "train_base", "embedded", self.scale.shared_steps, SHARED)

    def variant(self, name: str) -> None:
        settings = VARIANTS[name].settings
        if settings is not None:
            start = self._checkpoint("shared")
            self._train(name, "train_base", start, self.scale.variant_steps, settings)

    def single(self) -> None:
        self._encode("base", "train_single", REFINE_PX)
        start = self._checkpoint("shared")
        self._train("single", "train_single", start, self.scale.single_steps, HALF_BATCH)

    def refine(self) -> None:
        self._encode("refine", "train_refine", BASE_PX)
        folder = self.work / "models" / "refine"
        if _latest(folder) is None:
            settings = {
                "latents": self.work / "train_refine",
                "checkpoints": folder,
                "base": self._checkpoint("full"),
                "steps": self.scale.refine_steps,
                **REFINE,
            }
            self._job("train_refine", {**settings, **self._loop(self.scale.refine_steps)})

    def _train(
        self, name: str, latents: str, init: str | Path, steps: int, changes: dict[str, str]
    ) -> None:
        folder = self.work / "models" / name
        if (latest := _latest(folder)) is not None and latest >= steps:
            return
        settings = {
            "latents": self.work / latents,
            "checkpoints": folder,
            "init": init,
            "steps": steps,
            **MIXTURE,
            **LEARNING,
            **changes,
        }
        self._job("train_base", {**settings, **self._loop(steps)})

    def _loop(self, steps: int) -> dict[str, Any]:
        return {
            "loop.threads": self.threads,
            "loop.checkpoint_every": min(steps, 150),
            "loop.validate_every": min(steps, 300),
            "loop.keep_checkpoints": 2,
            "loop.log_every": 10,
            "loop.sample_every": 0,
        }

    def _checkpoint(self, name: str) -> Path:
        folder = self.work / "models" / name
        return folder / json.loads((folder / "latest.json").read_text())["checkpoint"]

    # --- numbers -------------------------------------------------------------------------

    def evaluate(self, name: str) -> None:
        """`name` is a variant, "single", or "cascade": full with the refinement."""
        out = self.work / "evaluations" / name
        if (out / "evaluation.json").exists():
            return
        scale, is_cascade = self.scale, name == "cascade"
        variant = VARIANTS.get(name, Variant({}))
        is_full = is_cascade or variant.settings is None
        settings: dict[str, Any] = {
            "base": self._checkpoint("full" if is_full else name),
            "refine": self._checkpoint("refine") if is_cascade else "none",
            "dataset": self.held_set,
            "out": out,
            "clips": scale.clips,
            "only_moving": "true",
            "frames": FRAMES,
            "fps": FPS,
            "seeds": scale.seeds,
            "batch": 8,
            "base_steps": scale.base_sampling_steps,
            "refine_steps": scale.refine_sampling_steps,
            "refine_guidance": 1,
            "turn_prompts": "true" if variant.turned else "false",
            "refine_truth": "true" if is_cascade else "false",
            "threads": self.threads,
        }
        if variant.withheld:
            settings["withhold"] = ",".join(variant.withheld)
        self._job("evaluate", settings)

    def _job(self, name: str, settings: dict[str, Any]) -> None:
        """Runs a job as a user does. Raises CalledProcessError when it fails."""
        words = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
        words += [word for key, value in self.tracking.items() for word in (f"--{key}", value)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        made = next(Path(str(settings[k])).name for k in RESULTS if k in settings)
        print(f"findings: {name} {made}", file=sys.stderr, flush=True)
        started_s = time.monotonic()
        command = [sys.executable, str(REPOSITORY / "jobs" / f"{name}.py"), *words]
        done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
        result = json.loads(done.stdout.splitlines()[-1])
        # One line a job, from which findings.json takes what was made, and how long it took.
        wall_s = time.monotonic() - started_s
        shown = {k: str(v) for k, v in settings.items() if not str(v).startswith(str(self.work))}
        line = {"job": name, "made": made, "wall_s": round(wall_s, 1), "settings": shown}
        line |= {k: result[k] for k in ("digest", "step", "loss", "samples_seen") if k in result}
        with (self.work / "notes.jsonl").open("a") as notes:
            notes.write(json.dumps(line) + "\n")


def record(mini: Miniature, scale_name: str) -> dict[str, Any]:
    """What findings.json says, out of every evaluation that is there."""
    rows, summaries = {}, {}
    for name in EVALUATED:
        path = mini.work / "evaluations" / name / "evaluation.json"
        if path.exists():
            evaluation = json.loads(path.read_text())
            rows[name], summaries[name] = evaluation["videos"], evaluation["summary"]
    notes = (mini.work / "notes.jsonl").read_text().splitlines()
    return {
        "scale": {
            "name": scale_name,
            **asdict(mini.scale),
            "single_steps": mini.scale.single_steps,
        },
        "made": {
            "where": f"{platform.machine()}, {os.cpu_count()} cores, {mini.threads} thread a job",
            "frames": FRAMES,
            "fps": FPS,
            "base_px": BASE_PX,
            "refine_px": REFINE_PX,
            "training_seeds": 1,
            "jobs": [json.loads(line) for line in notes],
        },
        "findings": [judge(finding, rows) for finding in FINDINGS],
        "targets": [judge_target(target, rows) for target in TARGETS],
        "summaries": summaries,
    }


def _latest(folder: Path) -> int | None:
    """The newest checkpoint's step."""
    path = folder / "latest.json"
    return int(json.loads(path.read_text())["step"]) if path.exists() else None


def parts(mini: Miniature) -> dict[str, Callable[[], None]]:
    """Name -> what makes it, in the order in which one process makes all."""
    return {
        "data": mini.data,
        "shared": mini.shared,
        "full": partial(mini.variant, "full"),
        "refine": mini.refine,
        "single": mini.single,
        **{name: partial(mini.variant, name) for name in VARIANTS if name != "full"},
        **{f"evaluate_{name}": partial(mini.evaluate, name) for name in EVALUATED},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="data, models and evaluations")
    parser.add_argument("--out", type=Path, required=True, help="findings.json and pictures")
    parser.add_argument("--scale", choices=sorted(SCALES), default="full")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--note", action="append", default=[], help="a sentence for the record")
    parser.add_argument("--only", nargs="*", help="parts to make; none: only write the record")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    mini = Miniature(arguments.work, SCALES[arguments.scale], arguments.threads)
    known = parts(mini)
    if unknown := sorted(set(arguments.only or ()) - set(known)):
        parser.error(f"--only {unknown[0]}: there are {', '.join(known)}")
    for name, make in known.items():
        if arguments.only is None or name in arguments.only:
            make()
    if arguments.only:
        return
    made = record(mini, arguments.scale)
    made["made"]["notes"] = arguments.note
    check_findings(made)
    arguments.out.mkdir(parents=True, exist_ok=True)
    made["pictures"] = write_pictures(mini.work, mini.held_set, arguments.out, FRAMES, FPS)
    (arguments.out / RESULT_FILE).write_text(json.dumps(made, indent=1) + "\n")
    for entry in made["findings"] + made["targets"]:
        print(f"{entry['verdict']:>14}  {entry['name']}")


if __name__ == "__main__":
    main()
