"""A generated video on disk: the .mp4, a strip of its frames, and what made it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.config import RequestError, config_hash, to_plain
from pipelines.generation.config import GenerateConfig
from pipelines.storage import absolute_uri, is_local, sha256_of_file
from pipelines.storage.single_files import local_file, store_of_file
from pipelines.training.checkpoints.checkpoint import Checkpoint

STRIP_FRAMES = 8
ENDINGS = (".mp4", ".png", ".json")  # video, strip, record
# Where files are and where it ran; none of it is seen in the video.
_NOT_SEEN = ("base", "refine", "image", "out", "tracking", "threads", "device", "offload")


def place_of_video(out: str, image: str) -> str:
    """Where the video goes, absolute; its folder is made. Raises RequestError when a file cannot be
    written there, or one of the three would take the place of a folder or of the image."""
    path = Path(absolute_uri(out))
    if path.suffix.lower() != ".mp4":
        raise RequestError(f"--out {out}: give a file that ends in .mp4")
    if not is_local(out):
        store, name = store_of_file(out)
        if absolute_uri(image) in {store.path(Path(name).with_suffix(e).name) for e in ENDINGS}:
            raise RequestError(f"--out {out}: would write over --image; give another name")
        store.check_writable()
        return absolute_uri(out)
    unfinished = _unfinished(path.with_suffix(".json"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.touch()
        unfinished.unlink()
        for file in (path, *map(path.with_suffix, ENDINGS[1:])):
            if file.is_dir():
                raise RequestError(f"--out {out}: {file} is a folder; give another name")
            if file.exists() and file.samefile(image):
                raise RequestError(
                    f"--out {out}: would write {file.name} over --image; give another name"
                )
    except OSError as error:
        raise RequestError(f"--out {out}: {error.strerror}; give another place") from error
    return str(path)


def facts_of(
    config: GenerateConfig, short_prompt: str, checkpoints: list[Checkpoint]
) -> dict[str, Any]:
    """What made this video; no times or places, so that equal requests give equal files."""
    with local_file(config.image) as image:
        image_sha256 = sha256_of_file(image)
    settings = {name: value for name, value in to_plain(config).items() if name not in _NOT_SEEN}
    return {
        "settings": {**settings, "short_prompt": short_prompt},
        "config_hash": config_hash(settings),
        "image_sha256": image_sha256,
        "checkpoints": {c.header.stage: c.header.digest for c in checkpoints},
        "datasets": {c.header.stage: c.header.dataset["digest"] for c in checkpoints},
    }


def write_record(
    out: Path, image_HWC: np.ndarray, frames_FHWC: np.ndarray, fps: int, facts: dict[str, Any]
) -> dict[str, Any]:
    """The video, the strip, and last the JSON that names the video by hash; returns that JSON."""
    from pipelines.media import write_image, write_video

    frames = even_sized(frames_FHWC)
    comment = json.dumps(facts, sort_keys=True)
    with _published(out) as unfinished:
        write_video(unfinished, frames, fps=fps, metadata={"comment": comment})
    with _published(out.with_suffix(".png")) as unfinished:
        write_image(unfinished, contact_strip(image_HWC, frames_FHWC))
    record = {**facts, "video": {"sha256": sha256_of_file(out), "frames": len(frames), "fps": fps}}
    text = json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False)
    with _published(out.with_suffix(".json")) as unfinished:
        unfinished.write_text(text + "\n", encoding="utf-8")
    return record


@contextlib.contextmanager
def _published(path: Path) -> Iterator[Path]:
    """A hidden file beside `path`, to be written whole; it takes its name when all went well."""
    unfinished = _unfinished(path)
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    return path.with_name(f".tmp-{path.name}")


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
