"""Makes the videos of an evaluation, a batch at a time, and measures each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from model.cascade import Cascade, fit_image
from model.presets import CascadePreset
from model.stage_sampling import StageSampling
from pipelines.config import RequestError
from pipelines.evaluation import metrics
from pipelines.evaluation.clips import first_frame, true_frames
from pipelines.evaluation.measure import measure_video
from pipelines.evaluation.metrics import Frames
from pipelines.evaluation.perceptual import feature_distance
from pipelines.evaluation.refinement import measure_closeness, measure_spectra
from pipelines.evaluation.sampling import Wanted, base_videos, refined_videos
from pipelines.generation.generate import even_sized, load_cascade
from pipelines.media import write_video
from pipelines.progress import Progress
from pipelines.records import Clip

if TYPE_CHECKING:
    from pipelines.evaluation.evaluate import Prepared


@dataclass(frozen=True)
class Made:
    """A generated video, its true clip at its size (None when that is shorter), and its row of
    evaluation.json."""

    final_FHWC: Frames
    truth_FHWC: Frames | None
    row: dict[str, Any]


@dataclass(frozen=True)
class _Stages:
    """The loaded cascade and how each stage is sampled."""

    cascade: Cascade
    base: StageSampling
    refine: StageSampling

    @property
    def final_px(self) -> tuple[int, int]:
        """(width, height) of what comes out last."""
        cascade = self.cascade
        if cascade.refine_unet is None:
            return cascade.base_width_px, cascade.base_height_px
        return cascade.refine_width_px, cascade.refine_height_px


def animate(prepared: Prepared) -> list[Made]:
    """Every clip with every seed; writes the videos into `--out`."""
    config = prepared.config
    torch.set_num_threads(config.threads)
    cascade, preset = load_cascade(prepared.base, prepared.refine, config.device)
    stages = _stages(prepared, cascade, preset)
    seeds = range(config.seed, config.seed + config.seeds)
    wanted = list(itertools.product(prepared.clips, seeds))
    made: list[Made] = []
    with Progress(len(wanted), "videos", "evaluating") as bar:
        for batch in _batched(wanted, config.batch):
            made += _make(prepared, stages, batch)
            bar.advance(len(batch))
    return made


def _stages(prepared: Prepared, cascade: Cascade, preset: CascadePreset) -> _Stages:
    config = prepared.config

    def sampling(default: StageSampling, steps: int, guidance: float | None) -> StageSampling:
        guidance = default.guidance if guidance is None else guidance
        return StageSampling(default.sampler, steps, guidance, default.guidance_rescale)

    levels = cascade.base_diffusion.num_timesteps, cascade.refine_diffusion.noise_range
    for name, most in zip(("base_steps", "refine_steps"), levels, strict=True):
        if getattr(config, name) > most:
            raise RequestError(f"--{name}: there are {most} noise levels; take fewer steps")
    return _Stages(
        cascade,
        sampling(preset.base_sampling, config.base_steps, config.base_guidance),
        sampling(preset.refine_sampling, config.refine_steps, config.refine_guidance),
    )


def _make(prepared: Prepared, stages: _Stages, batch: list[tuple[Clip, int]]) -> list[Made]:
    config, cascade = prepared.config, stages.cascade
    clips = [clip for clip, _ in batch]
    short = [clip.short_caption or clip.caption or "" for clip in clips]
    seeds = [seed for _, seed in batch]
    images = [first_frame(prepared.dataset, clip) for clip in clips]
    wanted = [
        Wanted(image, _prompt(clip, config.turn_prompts), words, seed)
        for image, (clip, seed), words in zip(images, batch, short, strict=True)
    ]
    base = base_videos(
        cascade, wanted, frames=config.frames, fps=config.fps, sampling=stages.base,
        withheld=config.withhold,
    )  # fmt: skip
    final, truths = base, _truths(prepared, clips, stages.final_px)
    refined_truths: list[tuple[Frames, Frames] | None] = [None] * len(batch)
    if cascade.refine_unet is not None:
        final = refined_videos(cascade, base, short, seeds, stages.refine)
        if config.refine_truth:
            refined_truths = _refine_truths(prepared, stages, clips, short, seeds)
    together = zip(batch, wanted, base, final, truths, refined_truths, strict=True)
    return [_measure(prepared, stages, *one) for one in together]


def _prompt(clip: Clip, turned: bool) -> str:
    caption = clip.caption or ""
    return metrics.turned_prompt(caption) if turned else caption


def _truths(prepared: Prepared, clips: list[Clip], size_px: tuple[int, int]) -> list[Frames | None]:
    config = prepared.config
    return [true_frames(prepared.dataset, c, *size_px, config.fps, config.frames) for c in clips]


def _refine_truths(
    prepared: Prepared, stages: _Stages, clips: list[Clip], short: list[str], seeds: list[int]
) -> list[tuple[Frames, Frames] | None]:
    """(the true clip at the base size, its refinement), where the clip is long enough."""
    cascade = stages.cascade
    small = _truths(prepared, clips, (cascade.base_width_px, cascade.base_height_px))
    there = [i for i, frames in enumerate(small) if frames is not None]
    out: list[tuple[Frames, Frames] | None] = [None] * len(clips)
    if there:
        videos = [frames for frames in small if frames is not None]
        refined = refined_videos(
            cascade, videos, [short[i] for i in there], [seeds[i] for i in there], stages.refine
        )
        for place, video, result in zip(there, videos, refined, strict=True):
            out[place] = (video, result)
    return out


def _measure(
    prepared: Prepared,
    stages: _Stages,
    chosen: tuple[Clip, int],
    wanted: Wanted,
    base_FHWC: Frames,
    final_FHWC: Frames,
    truth_FHWC: Frames | None,
    refined_truth: tuple[Frames, Frames] | None,
) -> Made:
    (clip, seed), cascade = chosen, stages.cascade
    video = Path(prepared.config.out) / f"{clip.clip_id}-seed{seed}.mp4"
    write_video(video, even_sized(final_FHWC), fps=prepared.config.fps)
    image_HWC = fit_image(np.asarray(wanted.image_HWC), *base_FHWC.shape[2:0:-1])
    measures = measure_video(image_HWC, wanted.prompt, base_FHWC, final_FHWC, cascade.clip)
    if truth_FHWC is not None:
        measures |= _against_truth(cascade, base_FHWC, final_FHWC, truth_FHWC)
        if refined_truth is not None:
            measures |= measure_closeness("true", *refined_truth, truth_FHWC, cascade.vae)
    row = {
        "clip_id": clip.clip_id,
        "caption": wanted.prompt,
        "seed": seed,
        "seen_in_training": clip.clip_id in prepared.seen,
        "video": video.name,
        "measures": measures,
    }
    return Made(final_FHWC, truth_FHWC, row)


def _against_truth(
    cascade: Cascade, base_FHWC: Frames, final_FHWC: Frames, truth_FHWC: Frames
) -> dict[str, float]:
    values = {
        "truth_psnr_db": min(metrics.psnr_db(final_FHWC, truth_FHWC), 99.0),
        "truth_feature_distance": feature_distance(cascade.vae, final_FHWC, truth_FHWC),
    }
    if final_FHWC is not base_FHWC:
        values |= measure_spectra(base_FHWC, final_FHWC, truth_FHWC)
        values |= measure_closeness("made", base_FHWC, final_FHWC, truth_FHWC, cascade.vae)
    return values


def _batched(wanted: list[tuple[Clip, int]], size: int) -> list[list[tuple[Clip, int]]]:
    return [wanted[i : i + size] for i in range(0, len(wanted), size)]
