"""What runs, in what order, and where each result lies.

The path of a result holds a hash of the job's configuration and of the results it reads. So an
unchanged request finds every result in place, and a changed one never overwrites an old result.
Pure: nothing is run or written here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.config import (
    ClusterConfig,
    RequestError,
    TrackingConfig,
    config_hash,
    required,
    setting,
)
from pipelines.storage import Store, absolute_uri, is_local
from pipelines.storage.fetching import version_in
from pipelines.storage.single_files import is_file, read_text


@dataclass(frozen=True)
class CascadeConfig:
    """One request for the whole cascade."""

    footage: str = required("folder or prefix with the raw footage")
    out: str = required("folder for every result; results found there are not made again")
    image: str = setting("", "picture to animate; empty: a frame of the best clip kept")
    prompt: str = setting("", "what should happen; empty: that clip's caption")
    short_prompt: str = setting("", "a few words for the refinement; empty: from the prompt")
    seed: int = setting(0, "seed of every job", low=0)
    steps: int | None = setting(None, "base steps; none: the preset's", unit="steps", low=1)
    refine_steps: int | None = setting(
        None, "refinement steps on high_res clips; none: the preset's", unit="steps", low=1
    )
    premium_steps: int | None = setting(
        None, "refinement steps, premium clips only; none: the preset's", unit="steps", low=0
    )
    curate_config: str = setting("", "YAML file for jobs/curate.py")
    encode_config: str = setting("", "YAML file for jobs/encode.py")
    train_base_config: str = setting("", "YAML file for jobs/train_base.py")
    train_refine_config: str = setting("", "YAML file for jobs/train_refine.py")
    generate_config: str = setting("", "YAML file for jobs/generate.py")
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


@dataclass(frozen=True)
class Node:
    """One job of the cascade.

    `output` is the URI given to the job; `marker` the file in it that says "complete" (for a
    checkpoint: `latest.json`, complete when it names `steps`).
    """

    name: str
    script: str
    title: str
    arguments: tuple[str, ...]
    output: str
    marker: str
    steps: int | None = None
    reads: tuple[str, ...] = ()

    def command(self) -> list[str]:
        return ["python", self.script, *self.arguments]


def plan_cascade(config: CascadeConfig, preset: str, footage_identity: str) -> list[Node]:
    """The six jobs in an order that respects what each reads.

    `footage_identity` changes when the footage does; it is the root of every path's hash.
    """
    out = absolute_uri(config.out)
    footage = _absolute(config.footage)
    hashes: dict[str, str] = {}

    def node(
        name: str,
        script: str,
        title: str,
        own: Mapping[str, str | int | None],
        reads: Mapping[str, str],
        produces: str,
        marker: str,
        config_file: str = "",
        suffix: str = "",
        steps: int | None = None,
    ) -> Node:
        given = [(flag, str(value)) for flag, value in own.items() if value not in (None, "")]
        identity = {
            "name": name,
            "preset": preset,
            "given": [pair for pair in given if pair[0] != "--footage"],
            "config": read_text(config_file) if config_file else "",
            "reads": [hashes[parent] for parent in reads.values()] or [footage_identity],
        }
        hashes[name] = config_hash(identity)[:12]
        output = f"{out}/{name}-{hashes[name]}{suffix}"
        arguments = ["--preset", preset]
        if config_file:
            arguments += ["--config", _absolute(config_file)]
        arguments += [text for pair in given for text in pair]
        arguments += [text for flag, parent in reads.items() for text in (flag, outputs[parent])]
        arguments += [produces, output, *_everywhere(config)]
        outputs[name] = output
        return Node(
            name, script, title, tuple(arguments), output, marker, steps, tuple(reads.values())
        )

    outputs: dict[str, str] = {}
    nodes = [
        node(
            "dataset",
            "jobs/curate.py",
            "curate the footage",
            {"--footage": footage},
            {},
            "--dataset",
            "dataset.json",
            config.curate_config,
        )
    ]
    for stage in ("base", "refine"):
        nodes.append(
            node(
                f"latents-{stage}",
                "jobs/encode.py",
                f"encode latents, {stage} stage",
                {"--stage": stage},
                {"--dataset": "dataset"},
                "--latents",
                "latents.json",
                config.encode_config,
            )
        )
    nodes.append(
        node(
            "base",
            "jobs/train_base.py",
            "train the base stage",
            {"--steps": config.steps, "--seed": config.seed},
            {"--latents": "latents-base"},
            "--checkpoints",
            "latest.json",
            config.train_base_config,
            steps=config.steps,
        )
    )
    nodes.append(
        node(
            "refine",
            "jobs/train_refine.py",
            "train the refinement stage",
            {
                "--steps": config.refine_steps,
                "--premium-steps": config.premium_steps,
                "--seed": config.seed,
            },
            {"--latents": "latents-refine", "--base": "base"},
            "--checkpoints",
            "latest.json",
            config.train_refine_config,
        )
    )
    nodes.append(
        node(
            "video",
            "jobs/generate.py",
            "generate a video",
            {
                "--image": _absolute(config.image) if config.image else "",
                "--prompt": config.prompt,
                "--short-prompt": config.short_prompt,
                "--seed": config.seed,
            },
            {"--base": "base", "--refine": "refine"},
            "--out",
            ".json",
            config.generate_config,
            suffix=".mp4",
        )
    )
    return nodes


def check_request(config: CascadeConfig) -> None:
    """Raises RequestError for what can be seen to be wrong before any job starts."""
    if is_local(config.footage) and not Path(config.footage).is_dir():
        raise RequestError(f"--footage {config.footage}: no such folder")
    if config.image and not is_file(config.image):
        raise RequestError(f"--image {config.image}: no such file")
    if config.image and not config.prompt:
        raise RequestError("--image without --prompt: say in words what should happen")
    files = (
        config.curate_config,
        config.encode_config,
        config.train_base_config,
        config.train_refine_config,
        config.generate_config,
    )
    for path in filter(None, files):
        if not is_file(path):
            raise RequestError(f"{path}: no such configuration file")


def footage_identity(footage: str) -> str:
    """Changes when a file is added, removed, resized or rewritten. Contents are not read here:
    curation reads them, and identifies each clip by content."""
    if not is_local(footage):
        entries = _entries(footage)
        return config_hash(sorted([n, str(e["size"]), version_in(e)] for n, e in entries.items()))
    listing = []
    for folder, _, names in os.walk(footage):
        for name in names:
            path = os.path.join(folder, name)
            status = os.lstat(path)
            shown = os.fsencode(os.path.relpath(path, footage)).decode(errors="backslashreplace")
            listing.append([shown, status.st_size, status.st_mtime_ns])
    return config_hash(sorted(listing))


def _entries(footage: str) -> dict[str, dict[str, Any]]:
    try:
        return Store.open(footage).list_entries()
    except FileNotFoundError:
        raise RequestError(f"--footage {footage}: no such bucket or prefix") from None


def _everywhere(config: CascadeConfig) -> list[str]:
    """Settings that every job takes but that do not change what it makes."""
    tracking = config.tracking
    given = ["--tracking.project", tracking.project]
    given += ["--tracking.enabled", str(tracking.enabled).lower()]
    return given + (["--tracking.uri", tracking.uri] if tracking.uri else [])


def _absolute(path: str) -> str:
    return absolute_uri(path)
