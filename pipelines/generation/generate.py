"""Image and words -> video, through the averaged weights of both stages."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines import metrics
from pipelines.config import RequestError, to_plain
from pipelines.generation.config import GenerateConfig
from pipelines.generation.load_cascade import check_pair, load_cascade, preset_of
from pipelines.generation.sampling_plan import SamplingPlan, described, plan_sampling
from pipelines.generation.video_record import (
    contact_strip,
    even_sized,
    facts_of,
    place_of_video,
    write_record,
)
from pipelines.lineage.tracking import Run, Tracker, job_identity
from pipelines.progress import Progress
from pipelines.storage.single_files import filled_folder, is_file, local_file
from pipelines.training.checkpoints.checkpoint import Checkpoint, open_checkpoint

__all__ = [
    "contact_strip",
    "even_sized",
    "generate",
    "load_cascade",
    "prepare",
    "read_picture",
    "sample_frames",
]

SHORT_PROMPT_WORDS = 3


@dataclass(frozen=True)
class GenerateRequest:
    """A checked request. `refine` is None for the base stage alone."""

    config: GenerateConfig
    base: Checkpoint
    refine: Checkpoint | None
    image_HWC: np.ndarray
    short_prompt: str
    plan: SamplingPlan

    @property
    def checkpoints(self) -> list[Checkpoint]:
        return [self.base] + ([self.refine] if self.refine else [])

    def lines(self) -> list[str]:
        """What would be done, for a dry run."""
        stages = ", then ".join(c.store.uri for c in self.checkpoints)
        networks = {c.header.stage: c.header for c in self.checkpoints}
        return [
            f"would generate {self.config.out} with {stages}",
            *described(self.plan, self.config, networks),
        ]


def prepare(config: GenerateConfig) -> GenerateRequest:
    """Raises RequestError for anything that can be seen to be wrong before the networks run."""
    image_HWC = read_picture(config.image)
    out = place_of_video(config.out, config.image)
    base = open_checkpoint(config.base, "base", "--base")
    refine = None
    if config.refine.lower() != "none":
        refine = open_checkpoint(config.refine, "refine", "--refine")
        check_pair(base, refine)
    plan = plan_sampling(config, preset_of(base, refine), refine is not None)
    short = config.short_prompt or " ".join(config.prompt.split()[:SHORT_PROMPT_WORDS])
    config = dataclasses.replace(config, out=out)
    return GenerateRequest(config, base, refine, image_HWC, short, plan)


def read_picture(path: str) -> np.ndarray:
    """uint8 RGB (H, W, 3). Raises RequestError when the file is not there or no picture."""
    from pipelines.media import MediaError, read_image

    if not is_file(path):
        raise RequestError(f"--image {path}: no such file")
    try:
        with local_file(path) as here:
            return np.array(read_image(here))  # a copy: what it gives is read-only
    except MediaError as error:
        raise RequestError(
            f"--image {path}: not a picture that can be read ({error}); give a PNG, JPEG or WebP"
        ) from error


def generate(request: GenerateRequest) -> dict[str, Any]:
    """Makes the video, a JSON of what made it and a contact strip beside it; records the run."""
    config, started_s = request.config, time.monotonic()
    tracker = Tracker.open(config.tracking)
    digests = [c.header.digest for c in request.checkpoints]
    identity = job_identity(config.out, config, *digests)
    name = f"generate {Path(config.out).name}"
    with tracker.run("generate", name, _params(request), {}, identity=identity) as run:
        for digest in digests:
            run.log_input_model(digest)
        frames_FHWC = sample_frames(request)
        seconds = round(time.monotonic() - started_s, 1)
        metrics.GENERATION_SECONDS.observe(seconds)
        facts = facts_of(config, request.short_prompt, request.checkpoints)
        folder, _, name = config.out.rpartition("/")
        with filled_folder(folder or "/", last=(Path(name).with_suffix(".json").name,)) as here:
            out = here / name
            record = write_record(out, request.image_HWC, frames_FHWC, request.plan.fps, facts)
            _record(run, request, record, out, seconds)
        height_px, width_px = even_sized(frames_FHWC).shape[1:3]
        return {
            "video": config.out,
            "frames": len(frames_FHWC),
            "width_px": width_px,
            "height_px": height_px,
            "fps": request.plan.fps,
            "run_id": run.run_id,
            "seconds": seconds,
        }


def sample_frames(request: GenerateRequest) -> np.ndarray:
    """The final frames, uint8 (F, H, W, 3), as the cascade gives them and before any video code."""
    import torch

    config, plan = request.config, request.plan
    torch.set_num_threads(config.threads)
    cascade, _ = load_cascade(
        request.base,
        request.refine,
        config.device,
        precision=config.precision,
        offload=config.offload,
        vae_tile_px=config.vae_tile_px,
    )
    refine = plan.refine or plan.preset.refine_sampling
    cascade = dataclasses.replace(
        cascade, base_sampler=plan.base.sampler, refine_sampler=refine.sampler
    )
    with Progress(plan.steps, "steps", "generating") as progress:
        _, final_FHWC = cascade.generate(
            request.image_HWC,
            config.prompt,
            request.short_prompt,
            seed=config.seed,
            num_frames=plan.frames,
            fps=plan.fps,
            base_steps=plan.base.num_steps,
            refine_steps=refine.num_steps,
            guidance_base=plan.base.guidance,
            guidance_refine=refine.guidance,
            progress=lambda stage, done, of: progress.advance(1, stage=f"{stage} {done}/{of}"),
            show_bar=False,
            windows=plan.windows,
            inversion_steps=plan.inversion_steps,
        )
    return final_FHWC


def _params(request: GenerateRequest) -> dict[str, Any]:
    params = to_plain(request.config)
    return {**params, "short_prompt": request.short_prompt}


def _made_from(checkpoint: Checkpoint) -> dict[str, str]:
    """Tags: the last checkpoint of the cascade, and what it was trained on."""
    header = checkpoint.header
    return {
        "checkpoint.digest": header.digest,
        "dataset.digest": header.dataset["digest"],
        "latents.digest": header.latents["digest"],
    }


def _record(
    run: Run, request: GenerateRequest, record: dict[str, Any], out: Path, seconds: float
) -> None:
    """`out` is the video's local file."""
    tags = {f"{stage}.digest": digest for stage, digest in record["checkpoints"].items()}
    tags |= _made_from(request.checkpoints[-1])
    run.set_tags(
        {**tags, "video.sha256": record["video"]["sha256"], "video.uri": request.config.out}
    )
    run.log_metrics({"seconds": seconds}, step=0)
    for path in (out, out.with_suffix(".png"), out.with_suffix(".json")):
        run.log_artifact(path, "video")
