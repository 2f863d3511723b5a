"""A training request, checked: everything that can be seen to be wrong before a worker starts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.config import RequestError, config_hash, to_plain
from pipelines.storage import Store
from pipelines.storage.writer_lock import writer_lock
from pipelines.training.checkpoints.checkpoint import Checkpoint, latest_checkpoint, open_checkpoint
from pipelines.training.checkpoints.publishing import mark_finished
from pipelines.training.config import TrainBaseConfig, TrainRefineConfig
from pipelines.training.feed.feed import Feed
from pipelines.training.latents.on_disk import Latents
from pipelines.training.latents.online import open_stored_or_online
from pipelines.training.stages import base_phases, phase_at, refine_phases
from pipelines.training.train_job import TrainJob

RAY_NOTES = "_ray"


@dataclass(frozen=True)
class TrainRequest:
    """What to train, and from where: `parent` is the checkpoint that training goes on from."""

    job: TrainJob
    latents: Latents
    parent: Checkpoint | None

    @property
    def first_step(self) -> int:
        return self.parent.header.step if self.parent else 0


def prepare_base(config: TrainBaseConfig) -> TrainRequest:
    """Raises RequestError."""
    latents = open_stored_or_online(config.latents, "base", config.online)
    from model.presets import PRESETS
    from pipelines.training.loop.network_start import resolve_init

    if config.model not in PRESETS:
        raise RequestError(f"--model {config.model}: there are {', '.join(sorted(PRESETS))}")
    preset = PRESETS[config.model]()
    unet = dataclasses.replace(preset.base_unet, image_integration=config.image_integration)
    _check_fit(latents, unet)
    job = _job(
        config,
        latents,
        stage="base",
        phases=base_phases(config.steps),
        preset=config.model,
        unet=unet,
        diffusion=preset.base_diffusion,
        text="text",
        start=resolve_init(config.init, unet),
        start_identity=config.init,
        base={},
    )
    return _request(job, latents)


def prepare_refine(config: TrainRefineConfig) -> TrainRequest:
    """Raises RequestError."""
    phases = refine_phases(config.steps, config.premium_steps)
    if not phases:
        raise RequestError("--steps 0 and --premium-steps 0: nothing to train; raise one of them")
    base = open_checkpoint(config.base, "base", "--base")
    base.check()
    latents = open_stored_or_online(config.latents, "refine", config.online)
    from model.presets import PRESETS
    from model.unet import UNetConfig

    base_unet = UNetConfig.from_json(base.header.model)
    unet = dataclasses.replace(base_unet, image_conditioning=False)
    _check_fit(latents, unet)
    job = _job(
        config,
        latents,
        stage="refine",
        phases=phases,
        preset=base.header.preset,
        unet=unet,
        diffusion=PRESETS[base.header.preset]().refine_diffusion,
        text="short_text",
        start={"from": "base"},
        start_identity=base.header.digest,
        base={"uri": base.store.uri, "digest": base.header.digest},
    )
    return _request(job, latents)


def open_feed(latents: Latents, job: TrainJob, phase: int, *, pin: bool = False) -> Feed:
    """The clips of one phase; `pin`: for a GPU of this process. Raises RequestError when there are
    none."""
    from pipelines.training.randomness import stream

    return Feed(
        latents,
        job.mixture,
        seed=stream(job.seed, "feed", phase),
        tier=job.phases[phase].tier,
        text=job.text,
        validation_clips=job.loop.validation_clips,
        pin=pin,
    )


def _job(
    config: TrainBaseConfig | TrainRefineConfig,
    latents: Latents,
    *,
    stage: Literal["base", "refine"],
    phases: Any,
    preset: str,
    unet: Any,
    diffusion: Any,
    text: str,
    start: dict[str, str],
    start_identity: str,
    base: dict[str, str],
) -> TrainJob:
    header, regimen = latents.header, config.regimen
    try:
        diffusion = dataclasses.replace(
            diffusion, noise_range=regimen.noise_range, offset_noise=regimen.offset_noise
        )
    except ValueError as error:
        raise RequestError(f"regimen: {error}") from error
    checkpoints = Store.open(config.checkpoints)
    checkpoints.check_writable()
    identity = {
        "stage": stage,
        "latents": header.digest,
        "start": start_identity,
        "seed": config.seed,
        "network": unet,
        "diffusion": diffusion,
        "mixture": config.mixture,
        "regimen": regimen,
        "validation_clips": config.loop.validation_clips,
    }
    return TrainJob(
        stage=stage,
        latents={"uri": latents.store.uri, "digest": header.digest},
        dataset=header.dataset,
        base=base,
        checkpoints=checkpoints.uri,
        phases=phases,
        seed=config.seed,
        preset=preset,
        model=unet.to_json(),
        diffusion=diffusion,
        start=start,
        text=text,
        mixture=config.mixture,
        regimen=regimen,
        loop=config.loop,
        online=config.online,
        identity=config_hash(identity),
        config=to_plain(config),
        config_hash=config_hash(config),
        encoders=header.encoders,
        size_px=(header.width_px, header.height_px),
        tracking=config.tracking,
    )


def _request(job: TrainJob, latents: Latents) -> TrainRequest:
    checkpoints = Store.open(job.checkpoints)
    parent = latest_checkpoint(checkpoints)
    if parent is not None:
        _check_continues(job, parent)
        if parent.header.step >= job.total_steps:
            with writer_lock(checkpoints, "--checkpoints"):
                mark_finished(checkpoints, True)
                checkpoints.remove(RAY_NOTES)  # of a run that was killed when all else was done
            raise RequestError(
                f"--checkpoints {job.checkpoints}: already trained to step {parent.header.step} "
                f"({parent.store.uri}); ask for more steps, or give another folder"
            )
        parent.check()
    for number in range(len(job.phases)):
        open_feed(latents, job, number).close()
    return TrainRequest(job, latents, parent)


def _check_continues(job: TrainJob, parent: Checkpoint) -> None:
    """Going on under other settings would make a model that no one recipe describes."""
    header = parent.header
    phases_before = [phase["steps"] for phase in header.phases]
    same_stretch = _stretch(phases_before, header.step) == _stretch(
        [phase.steps for phase in job.phases], header.step
    )
    if header.stage == job.stage and header.identity == job.identity and same_stretch:
        return
    changed = _changed_settings(header.config, job.config)
    raise RequestError(
        f"--checkpoints {job.checkpoints}: {parent.name} there was trained from something else "
        f"({changed}); give another folder, or the same settings to go on"
    )


def _stretch(phase_steps: list[int], step: int) -> tuple[int, int] | None:
    """Where the last of `step` steps lies: (phase, step within it); None behind the end."""
    from pipelines.training.stages import Phase

    phases = tuple(Phase("", "", steps) for steps in phase_steps)
    try:
        return phase_at(phases, min(step, sum(phase_steps)) - 1)
    except ValueError:
        return None


def _changed_settings(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> str:
    ignored = {"checkpoints", "cluster", "tracking", "loop", "online"}
    names = []
    for name in sorted(set(before) | set(now)):
        a, b = before.get(name), now.get(name)
        if a == b or (not prefix and name in ignored):
            continue
        if isinstance(a, dict) and isinstance(b, dict):
            names.append(_changed_settings(a, b, f"{name}."))
        else:
            names.append(f"{prefix}{name}")
    return ", ".join(names) or "other latents, base or code"


def _check_fit(latents: Latents, unet: Any) -> None:
    header = latents.header
    if header.latent_shape[0] != unet.in_channels:
        raise RequestError(
            f"--latents {latents.store.uri}: {header.latent_shape[0]} latent channels, the network "
            f"takes {unet.in_channels}; encode with the autoencoder of this preset"
        )
    if header.text_shape[1] != unet.cross_attention_dim:
        raise RequestError(
            f"--latents {latents.store.uri}: text features of width {header.text_shape[1]}, the "
            f"network takes {unet.cross_attention_dim}; encode with the CLIP of this preset"
        )
