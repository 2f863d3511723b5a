"""Image and words -> video, through the averaged weights of both stages."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import RequestError, config_hash, to_plain
from pipelines.lineage.tracking import Run, Tracker
from pipelines.progress import Progress
from pipelines.storage import sha256_of_file
from pipelines.training.checkpoint import Checkpoint, CheckpointHeader, open_checkpoint
from pipelines.training.config import GenerateConfig

SHORT_PROMPT_WORDS = 3
STRIP_FRAMES = 8


@dataclass(frozen=True)
class GenerateRequest:
    """A checked request. `refine` is None for the base stage alone."""

    config: GenerateConfig
    base: Checkpoint
    refine: Checkpoint | None
    image_HWC: np.ndarray
    short_prompt: str


@dataclass(frozen=True)
class Generated:
    """What the cascade made: frames of both stages, uint8 (F, H, W, 3)."""

    base_FHWC: np.ndarray
    final_FHWC: np.ndarray
    fps: int


def prepare(config: GenerateConfig) -> GenerateRequest:
    """Raises RequestError for anything that can be seen to be wrong before the networks run."""
    out = Path(config.out).expanduser().absolute()
    if out.suffix.lower() != ".mp4":
        raise RequestError(f"--out {config.out}: give a file that ends in .mp4")
    image_HWC = read_picture(config.image)
    base = open_checkpoint(config.base, "base", "--base")
    refine = None
    if config.refine.lower() != "none":
        refine = open_checkpoint(config.refine, "refine", "--refine")
        _check_pair(base, refine)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(f"--out {config.out}: {error.strerror}; give another place") from error
    short = config.short_prompt or " ".join(config.prompt.split()[:SHORT_PROMPT_WORDS])
    config = dataclasses.replace(config, out=str(out))
    return GenerateRequest(config, base, refine, image_HWC, short)


def read_picture(path: str) -> np.ndarray:
    """uint8 RGB (H, W, 3). Raises RequestError when the file is not there or no picture."""
    from pipelines.media import MediaError, read_image

    if not Path(path).is_file():
        raise RequestError(f"--image {path}: no such file")
    try:
        return np.array(read_image(path))  # a copy: what it gives is read-only
    except MediaError as error:
        raise RequestError(f"--image {path}: not a picture that can be read ({error})") from error


def generate(request: GenerateRequest) -> dict[str, Any]:
    """Makes the video, a JSON of what made it and a contact strip beside it; records the run."""
    config, started_s = request.config, time.monotonic()
    tracker = Tracker.open(config.tracking)
    models = [tracker.find_model(c.header.digest) for c in _checkpoints(request)]
    with tracker.run("generate", f"generate {Path(config.out).name}", _params(request), {}) as run:
        for model in models:
            run.log_input_model(model)
        made = _run_cascade(request)
        seconds = round(time.monotonic() - started_s, 1)
        facts = _facts(request, made)
        _write(request, made, facts)
        _record(run, config, facts, seconds)
        height_px, width_px = even_sized(made.final_FHWC).shape[1:3]
        return {
            "video": config.out,
            "frames": len(made.final_FHWC),
            "width_px": width_px,
            "height_px": height_px,
            "fps": made.fps,
            "run_id": run.run_id,
            "seconds": seconds,
        }


# --- the cascade ---------------------------------------------------------------------------


def _run_cascade(request: GenerateRequest) -> Generated:
    import torch

    config = request.config
    torch.set_num_threads(config.threads)
    cascade, preset = load_cascade(request.base, request.refine, config.device)
    sampling = {"base": preset.base_sampling, "refine": preset.refine_sampling}
    steps = {
        "base": config.base_steps or sampling["base"].num_steps,
        "refine": config.refine_steps or sampling["refine"].num_steps,
    }
    total = steps["base"] + (steps["refine"] if request.refine else 0)
    fps = config.fps or preset.fps
    with Progress(total, "steps", "generating") as progress:
        base_FHWC, final_FHWC = cascade.generate(
            request.image_HWC,
            config.prompt,
            request.short_prompt,
            seed=config.seed,
            num_frames=config.frames or preset.num_frames,
            fps=fps,
            base_steps=steps["base"],
            refine_steps=steps["refine"],
            guidance_base=_given(config.base_guidance, sampling["base"].guidance),
            guidance_refine=_given(config.refine_guidance, sampling["refine"].guidance),
            progress=lambda stage, done, of: progress.advance(1, stage=stage),
            show_bar=False,
        )
    return Generated(base_FHWC, final_FHWC, fps)


def load_cascade(base: Checkpoint, refine: Checkpoint | None, device: str) -> tuple[Any, Any]:
    """(model.cascade.Cascade with both stages' averaged weights, its CascadePreset).

    Raises RequestError when the two do not belong together, or an encoder is not the one that
    the latents were made with.
    """
    from model.cascade import Cascade

    if refine is not None:
        _check_pair(base, refine)
    preset = _preset(base, refine)
    vae, clip = _load_encoders(base.header, device)
    refine_unet = _load_averaged(refine, device) if refine else None
    unet = _load_averaged(base, device)
    return Cascade.from_preset(preset, unet, refine_unet, vae, clip), preset


def _preset(base_checkpoint: Checkpoint, refine_checkpoint: Checkpoint | None) -> Any:
    """The preset that the base was trained from, with the noise and sizes both were trained at."""
    from model.diffusion import DiffusionConfig
    from model.presets import PRESETS

    base = base_checkpoint.header
    if base.preset not in PRESETS:
        raise RequestError(f"--base: its network preset {base.preset!r} is unknown to this code")
    preset = dataclasses.replace(
        PRESETS[base.preset](),
        base_diffusion=DiffusionConfig(**base.diffusion),
        base_width_px=base.size_px[0],
        base_height_px=base.size_px[1],
    )
    if refine_checkpoint is None:
        return preset
    refine = refine_checkpoint.header
    return dataclasses.replace(
        preset,
        refine_diffusion=DiffusionConfig(**refine.diffusion),
        refine_width_px=refine.size_px[0],
        refine_height_px=refine.size_px[1],
    )


def _load_averaged(checkpoint: Checkpoint, device: str) -> Any:
    from model.unet import VideoUNet

    with checkpoint.local_directory() as folder:
        return VideoUNet.load(folder / "ema").to(device).eval()


def _load_encoders(header: CheckpointHeader, device: str) -> tuple[Any, Any]:
    """The encoders that the latents were made with, by name and by content."""
    from model.encoders import WeightsUnavailable, load_clip, load_vae
    from pipelines.training.clip_encoder import weights_digest

    names = {role: encoder["name"] for role, encoder in header.encoders.items()}
    try:
        vae, clip = load_vae(names["vae"], device), load_clip(names["clip"], device)
    except WeightsUnavailable as error:
        raise RequestError(f"encoders: {error}") from error
    for role, module in (("vae", vae.vae), ("clip", clip.model)):
        if weights_digest(module) != header.encoders[role]["digest"]:
            raise RequestError(
                f"--base: trained on latents of another {role} than {names[role]!r} is now; "
                "encode and train again, or restore those weights"
            )
    return vae, clip


def _given(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _check_pair(base: Checkpoint, refine: Checkpoint) -> None:
    if base.header.encoders["vae"]["digest"] != refine.header.encoders["vae"]["digest"]:
        raise RequestError(
            "--refine: trained on latents of another autoencoder than --base; give a pair"
        )
    if base.header.preset != refine.header.preset:
        raise RequestError(
            f"--refine: of network preset {refine.header.preset}, --base is of "
            f"{base.header.preset}; give a pair"
        )


def _checkpoints(request: GenerateRequest) -> list[Checkpoint]:
    return [request.base] + ([request.refine] if request.refine else [])


# --- writing -------------------------------------------------------------------------------


def _write(request: GenerateRequest, made: Generated, facts: dict[str, Any]) -> None:
    """The video, the strip, and last the JSON that names the video by hash."""
    from pipelines.media import write_image, write_video

    out = Path(request.config.out)
    unfinished = out.with_name(f".tmp-{out.name}")
    with contextlib.ExitStack() as cleaning:
        cleaning.callback(unfinished.unlink, missing_ok=True)
        comment = json.dumps(facts, sort_keys=True)
        frames = even_sized(made.final_FHWC)
        write_video(unfinished, frames, fps=made.fps, metadata={"comment": comment})
        unfinished.replace(out)
    write_image(out.with_suffix(".png"), contact_strip(request.image_HWC, made.final_FHWC))
    facts["video"] = {"sha256": sha256_of_file(out), "frames": len(frames), "fps": made.fps}
    text = json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False)
    out.with_suffix(".json").write_text(text + "\n")


def even_sized(frames_FHWC: np.ndarray) -> np.ndarray:
    """Without the last row or column where there is an odd number: 4:2:0 video needs pairs."""
    height, width = frames_FHWC.shape[1:3]
    return frames_FHWC[:, : height - height % 2, : width - width % 2]


def contact_strip(image_HWC: np.ndarray, frames_FHWC: np.ndarray) -> np.ndarray:
    """The given image, then some frames evenly over the video, side by side at one height."""
    from model.cascade import fit_image

    height, width = frames_FHWC.shape[1:3]
    count = min(STRIP_FRAMES, len(frames_FHWC))
    chosen = np.linspace(0, len(frames_FHWC) - 1, count).round().astype(int)
    return np.concatenate([fit_image(image_HWC, width, height), *frames_FHWC[chosen]], axis=1)


def _facts(request: GenerateRequest, made: Generated) -> dict[str, Any]:
    """What made this video; no times or places, so that equal requests give equal files."""
    config = request.config
    settings = {
        name: value
        for name, value in to_plain(config).items()
        if name not in ("base", "refine", "image", "out", "tracking", "threads", "device")
    }
    return {
        "settings": {**settings, "short_prompt": request.short_prompt},
        "config_hash": config_hash(settings),
        "image_sha256": sha256_of_file(config.image),
        "checkpoints": {c.header.stage: c.header.digest for c in _checkpoints(request)},
        "datasets": {c.header.stage: c.header.dataset["digest"] for c in _checkpoints(request)},
    }


def _params(request: GenerateRequest) -> dict[str, Any]:
    params = to_plain(request.config)
    return {**params, "short_prompt": request.short_prompt}


def _record(run: Run, config: GenerateConfig, facts: dict[str, Any], seconds: float) -> None:
    out = Path(config.out)
    tags = {f"{stage}.digest": digest for stage, digest in facts["checkpoints"].items()}
    run.set_tags({**tags, "video.sha256": facts["video"]["sha256"], "video.uri": config.out})
    run.log_metrics({"seconds": seconds}, step=0)
    for path in (out, out.with_suffix(".png"), out.with_suffix(".json")):
        run.log_artifact(path, "video")
