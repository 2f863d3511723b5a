"""The picture and the words to animate when the request names none: a frame of a kept clip."""

from __future__ import annotations

from pathlib import Path

from pipelines.config import RequestError
from pipelines.records import Clip, from_row
from pipelines.storage import Store


def best_clip(clips: list[Clip]) -> Clip:
    """The premium clip with the highest CLIP score; any kept video clip where none is premium.

    Raises RequestError when the dataset kept no video clip.
    """
    kept = [c for c in clips if c.verdict == "kept" and c.kind == "video"]
    if not kept:
        raise RequestError("the dataset kept no video clip; give --image and --prompt")
    return max(kept, key=lambda c: ("premium" in c.tiers, c.clip_score or 0.0, c.clip_id))


def prompt_from_dataset(dataset: str, folder: Path) -> list[str]:
    """Command-line words for jobs/generate.py: --image (written into `folder`) and --prompt."""
    from pipelines.media import read_clip_frames, write_image
    from pipelines.shard_reader import read_sample

    store = Store.open(dataset)
    rows = store.read_table("clips.parquet").drop_columns(["embedding"]).to_pylist()
    clip = best_clip([from_row(Clip, row) for row in rows])
    media = read_sample(store, clip)
    frames_FHWC = read_clip_frames(
        media, fps=clip.fps or 1.0, width_px=clip.crop_w_px, height_px=clip.crop_h_px, max_frames=1
    )
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"{clip.clip_id}.png"
    write_image(image, frames_FHWC[0])
    return ["--image", str(image), "--prompt", clip.caption or "", *_short(clip)]


def _short(clip: Clip) -> list[str]:
    return ["--short-prompt", clip.short_caption] if clip.short_caption else []
