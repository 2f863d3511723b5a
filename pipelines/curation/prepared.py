"""What is checked before anything starts, and how the run's results are named."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from pipelines.config import RequestError, config_hash, to_plain
from pipelines.curation.aesthetic import check_head
from pipelines.curation.captioners import check_backend
from pipelines.curation.captions import check_languages
from pipelines.curation.commit_log import WORK_FOLDER, commit_key
from pipelines.curation.config import CurateConfig
from pipelines.curation.found import Found
from pipelines.curation.ingest import list_footage
from pipelines.curation.nsfw import check_nsfw
from pipelines.curation.publish import refuse_complete, tidy_complete
from pipelines.curation.rights.table import RightsTable, read_table
from pipelines.curation.stage_code import ROOT, code_of
from pipelines.curation.taken_down import TakenDown, taken_down_before
from pipelines.curation.work import SIDECAR, Work
from pipelines.job import say
from pipelines.lineage.manifest import read_dataset
from pipelines.media.program import program_build
from pipelines.storage import Store, absolute_uri, is_local, sha256_of_file

#: Packages whose version may change what a stage finds: an upgrade does its work again.
SEEING = (
    *("av", "numpy", "opencv-python", "opencv-python-headless", "pillow", "scenedetect"),
    *("rapidocr-onnxruntime", "onnxruntime"),
)
SAYING = ("torch", "open_clip_torch", "transformers", "torchvision", "nudenet", "onnxruntime")
CUTTING = ("av", "imageio-ffmpeg", "pillow")


@dataclass(frozen=True)
class Prepared:
    """A request that can be met, as far as can be known without Ray."""

    config: CurateConfig
    store: Store
    files: Sequence[Found]
    parent_digest: str | None = None
    rights: RightsTable = field(default_factory=RightsTable)
    taken_down: TakenDown = field(default_factory=TakenDown)


def prepare(config: CurateConfig) -> Prepared:
    """Checks the request and lists the footage. Raises RequestError."""
    store = Store.open(config.dataset)
    tidy_complete(store)
    refuse_complete(store)
    if config.work:
        Store.open(config.work)
    parent_digest = read_dataset(config.parent).digest if config.parent else None
    rights = read_table(config.rights) if config.rights else RightsTable()
    files = list_footage(config.footage)
    _refuse_inside_footage(config, store)
    check_models(config)
    taken_down = taken_down_before(config, store)
    for warning in taken_down.warnings:
        say(warning)
    return Prepared(config, store, files, parent_digest, rights, taken_down)


def check_models(config: CurateConfig) -> None:
    """Raises RequestError for a model or detector that cannot do what is asked."""
    check_backend(config.captions)
    check_languages(config.captions)
    check_head(config.clip_score.aesthetic_weights, config.clip_score.model)
    check_nsfw(config.nsfw)


def _refuse_inside_footage(config: CurateConfig, store: Store) -> None:
    """What is written among the footage would be footage for the next run."""
    if not is_local(config.footage):
        _refuse_inside_prefix(config, store)
        return
    root = Path(os.path.realpath(absolute_uri(config.footage)))
    if store.is_local and root.is_relative_to(os.path.realpath(store.uri)):
        raise RequestError(
            f"--dataset {config.dataset}: --footage lies in it; choose a folder of its own"
        )
    for name, uri in (("dataset", store.uri), ("work", absolute_uri(config.work))):
        given = getattr(config, name)
        if given and is_local(uri) and Path(os.path.realpath(uri)).is_relative_to(root):
            raise RequestError(f"--{name} {given}: lies inside --footage; choose a place beside it")


def _refuse_inside_prefix(config: CurateConfig, store: Store) -> None:
    root = f"{absolute_uri(config.footage)}/"
    if root.startswith(f"{store.uri}/"):
        raise RequestError(
            f"--dataset {config.dataset}: --footage lies in it; choose a prefix of its own"
        )
    for name, uri in (("dataset", store.uri), ("work", absolute_uri(config.work))):
        if getattr(config, name) and f"{uri}/".startswith(root):
            raise RequestError(
                f"--{name} {getattr(config, name)}: lies inside --footage; choose a place beside it"
            )


def work_of(config: CurateConfig, store: Store) -> Work:
    """Names every stage's results by all that decides them, and by nothing else.

    Makes the work folder. Raises RequestError when the one asked for cannot be written.
    """
    captions, score = config.captions, config.clip_score
    watch = [_settings(config.watch), *_made_by("watch", SEEING)]
    words = [captions.backend, captions.model, captions.prompt, captions.frames]
    keys = {
        "watch": commit_key("watch", watch),
        "captions": commit_key(
            "captions",
            watch,
            [*words, captions.clips_per_batch],
            weights_of(captions.backend),
            _made_by("captioners", SAYING),
        ),
        "scores": commit_key(
            "scores",
            watch,
            [score.model, score.aesthetic_weights, score.frames_per_batch],
            [config.nsfw.method, *config.nsfw.classes],
            [weights_of(score.model), weights_of(score.aesthetic_weights)],
            _made_by("scorer", SAYING),
        ),
        "cuts": commit_key(
            "cuts", watch, _settings(config.cuts), _made_by("cuts", CUTTING), *_other_encoder()
        ),
    }
    # Limits decide what fails, never what is seen: raised, they retry the failures alone.
    keys["failures"] = config_hash([keys["watch"], config.watch.sandbox])
    keys |= {"passing": keys["failures"], SIDECAR: keys["captions"]}
    shared = open_work_folder(config, store)
    return Work(store.uri, shared.uri, config, keys, captions.backend, uuid.uuid4().hex[:12])


def _other_encoder() -> list[dict[str, str]]:
    """The FFmpeg that FFMPEG_BINARY names, if it does. Raises RequestError when it is none."""
    build = program_build()
    return [build] if build else []


def open_work_folder(config: CurateConfig, store: Store) -> Store:
    """As asked; else beside the dataset; else, where nothing may be written there, inside it."""
    if config.work:
        asked = Store.open(config.work)
        asked.check_writable()
        return asked
    inside = Store(store.path(WORK_FOLDER))
    above = store.uri.rpartition("/")[0]
    if not above or above.endswith(("/", ":")):  # the root of a disk, or of an object store
        return inside
    beside = Store(f"{above}/{WORK_FOLDER}")
    try:
        beside.check_writable()
    except RequestError:
        say(f"{above}: not writable; what is watched is kept in {inside.uri}, for this dataset")
        return inside
    return beside


def _settings(section: Any) -> dict[str, Any]:
    """A section without the limits of its child process."""
    return {name: value for name, value in to_plain(section).items() if name != "sandbox"}


def _made_by(module: str, packages: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """The code of a stage and the versions of what it stands on."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return code_of(f"pipelines.curation.{module}"), found


def weights_of(model: str) -> dict[str, str]:
    """sha256 of the weights at hand: retrained under the same name, they say something else."""
    if model.endswith("embedded"):
        files = sorted((ROOT / "model" / "assets").glob("embedded_coca*"))
    else:
        files = [Path(model)] if model.endswith(".safetensors") else []
    return {path.name: sha256_of_file(path) for path in files if path.is_file()}
