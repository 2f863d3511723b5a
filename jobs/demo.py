"""`make demo`: the whole cascade on embedded footage, through a real local Ray head.

Writes footage (a generated world, real clips, broken files), starts a Ray head, submits every
job with `ray job submit`, stops only what it started, and says where to look.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines import job
from pipelines.cascade.plan import CascadeConfig, footage_identity, plan_cascade
from pipelines.cascade.run import run_cascade
from pipelines.cascade.runners import JobFailed, SubmitRunner
from pipelines.cluster.local import local_cluster
from pipelines.config import TrackingConfig, parse_request, setting
from pipelines.job import say
from pipelines.progress import in_words
from pipelines.storage import Store


@dataclass(frozen=True)
class DemoConfig:
    """What the demo makes, and where."""

    out: str = setting("outputs/demo", "folder for every result")
    world: str = setting("demo", "how much footage is generated: small, demo or large")
    seed: int = setting(0, "seed of the world and of every job", low=0)
    steps: int | None = setting(None, "base steps; none: the preset's", unit="steps", low=1)
    refine_steps: int | None = setting(
        None, "refinement steps; none: the preset's", unit="steps", low=1
    )
    premium_steps: int | None = setting(
        None, "refinement steps on premium clips; none: the preset's", unit="steps", low=0
    )
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def main(argv: Sequence[str]) -> dict[str, Any] | None:
    request = parse_request(
        DemoConfig,
        {"demo": DemoConfig},
        argv,
        prog="demo.py",
        description="Runs the whole cascade on embedded footage through a local Ray head.",
    )
    config = request.config
    out = Path(config.out).absolute()
    if request.dry_run:
        say(f"would write footage, a dataset, latents, two checkpoints and a video to {out}")
        return None
    started_s = time.monotonic()
    Store.open(str(out)).check_writable()
    footage = _footage(out, config)
    cascade = _cascade_config(out, footage, config)
    nodes = plan_cascade(cascade, "demo", footage_identity(str(footage)))
    (out / "logs").mkdir(exist_ok=True)
    try:
        say("starting a Ray head on this machine")
        with local_cluster(log=out / "logs" / "ray-head.log") as cluster:
            runner = SubmitRunner(cluster.jobs_url, cluster.environment)
            result = run_cascade(cascade, nodes, runner, out / "logs")
    except JobFailed as error:
        say(str(error))
        sys.exit(job.EXIT_FAILED)
    result["tracking_uri"] = cascade.tracking.uri
    result["seconds"] = round(time.monotonic() - started_s, 1)
    (out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    _say_where(out, result)
    return result


def _footage(out: Path, config: DemoConfig) -> Path:
    """Writes the footage once; a complete folder of the same world is used again."""
    from pipelines.footage import write_world

    footage, stamp = out / "footage", out / "footage.json"
    wanted = {"world": config.world, "seed": config.seed}
    if stamp.is_file() and json.loads(stamp.read_text()) == wanted and footage.is_dir():
        say(f"footage: already written, {footage}")
        return footage
    say("writing footage: a generated world, real clips, and broken files")
    begun_s = time.monotonic()
    write_world(footage, seed=config.seed, preset=config.world)
    count = sum(1 for path in footage.rglob("*") if not path.is_dir())
    say(f"footage: {count} files, {in_words(time.monotonic() - begun_s)}")
    stamp.write_text(json.dumps(wanted))
    return footage


def _cascade_config(out: Path, footage: Path, config: DemoConfig) -> CascadeConfig:
    """Animates the first frame of a scene that is in no film of the world."""
    from pipelines.footage import demo_prompt_image
    from pipelines.media import write_image

    image_HWC, prompt, short_prompt = demo_prompt_image(config.seed)
    image = out / "prompt" / "image.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    write_image(image, image_HWC)
    tracking = config.tracking
    if not tracking.uri:
        tracking = replace(tracking, uri=f"sqlite:///{out}/mlflow.db")
    return CascadeConfig(
        footage=str(footage),
        out=str(out),
        image=str(image),
        prompt=prompt,
        short_prompt=short_prompt,
        seed=config.seed,
        steps=config.steps,
        refine_steps=config.refine_steps,
        premium_steps=config.premium_steps,
        tracking=tracking,
    )


def _say_where(out: Path, result: dict[str, Any]) -> None:
    say("")
    say(f"report  {result['report']}")
    say(f"video   {result['video']}")
    say(f"runs    make ui{'' if out.name == 'demo' else f' OUTPUT={out}'}")
    say(f"        (MLflow on {result['tracking_uri']})")
    say(f"past    {result['lineage']}")
    say(f"        .venv/bin/python jobs/trace.py video {result['video']} --under {out}")
    say("")


if __name__ == "__main__":
    job.run(main)
