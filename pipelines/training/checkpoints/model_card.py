"""README.md of a checkpoint: what it is, what it learned from and under which licences.

Equal training gives equal bytes: digests, no places, no times.
"""

from __future__ import annotations

from pipelines.training.checkpoints.saved_state import Place
from pipelines.training.checkpoints.seen_clips import SeenClips
from pipelines.training.train_job import TrainJob

CARD_FILE = "README.md"

_WHAT = {
    "base": "The base stage of an I2VGen-XL cascade (arXiv 2311.04145): from one image and a text"
    " to the latents of a video.",
    "refine": "The refinement stage of an I2VGen-XL cascade (arXiv 2311.04145): it takes a video"
    " of the base stage part of the way to noise and back, at a higher resolution, under a short"
    " text.",
}
_LOADED_BY = {
    "base": '`diffusers.I2VGenXLUNet.from_pretrained(folder, subfolder="unet")`, or this '
    'project\'s `VideoUNet.load(folder + "/unet")`',
    "refine": 'this project\'s `VideoUNet.load(folder + "/unet")`',
}


def model_card(job: TrainJob, place: Place, loss: float, seen: SeenClips) -> str:
    """The page as Markdown, with the head that model hubs read."""
    width_px, height_px = job.size_px
    facts = [
        ("stage", job.stage),
        ("step", f"{place.step}, phase {job.phases[place.phase].name}"),
        ("preset", job.preset),
        ("picture", f"{width_px}x{height_px} px"),
        ("training loss, mean of the last steps", f"{loss:.6g}"),
        ("samples seen", f"{place.samples_seen}"),
        ("different clips seen", _at_least(seen.clips, seen)),
        ("of different sources", _at_least(seen.sources, seen)),
        ("dataset", _digest(job.dataset)),
        ("latents", _digest(job.latents)),
        ("base checkpoint", _digest(job.base) if job.base else "none"),
        ("what decides it, hashed", f"`{job.identity}`"),
    ]
    licenses = [(name, f"{clips}") for name, clips in seen.licenses.items()]
    return "\n".join(
        [
            *_head(job),
            f"# i2vgen-ray, {job.stage} stage, step {place.step}",
            "",
            _WHAT[job.stage],
            "",
            f"Load it with {_LOADED_BY[job.stage]}; `ema/` holds the averaged weights, which "
            "sample better. No file is a pickle.",
            "",
            *_table(("what", ""), facts),
            "",
            "## What it learned from",
            "",
            "`lineage.parquet` names every clip it saw since the checkpoint before, how often, and "
            "at which step first. The whole past, with files and time spans:",
            "",
            "```",
            "python jobs/trace.py checkpoint FOLDER",
            "```",
            "",
            "Licences as stated with the footage, by clips seen"
            + (" in this stage; the base checkpoint has a card of its own:" if job.base else ":"),
            "",
            *_table(("licence", "clips"), licenses),
            "",
            "## Limits",
            "",
            "It has seen what the dataset holds and nothing else; what was filtered out, and why, "
            "is in that dataset's `report.html`. Nothing here says that the licences allow a use: "
            "they are what the owners of the footage stated.",
            "",
        ]
    )


def _head(job: TrainJob) -> list[str]:
    tags = ["i2vgen-xl", "video-diffusion", f"{job.stage}-stage"]
    return [
        "---",
        "library_name: diffusers",
        f"pipeline_tag: {'image-to-video' if job.stage == 'base' else 'video-to-video'}",
        "tags:",
        *(f"- {tag}" for tag in tags),
        "---",
        "",
    ]


def _table(columns: tuple[str, str], rows: list[tuple[str, str]]) -> list[str]:
    lines = [f"| {columns[0]} | {columns[1]} |", "|---|---|"]
    return lines + [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]


def _cell(text: str) -> str:
    """Text that came with footage must not end the cell, the row or the table, nor be a tag."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    for special, harmless in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|")):
        plain = plain.replace(special, harmless)
    return plain


def _at_least(count: int, seen: SeenClips) -> str:
    return f"{count}" if seen.complete else f"at least {count} (an earlier ledger is lost)"


def _digest(reference: dict[str, str]) -> str:
    return f"`{reference['digest']}`"
