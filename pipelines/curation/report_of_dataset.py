"""report.html of a dataset that exists, from its own rows and shards: footage is not needed."""

from __future__ import annotations

from pipelines.config import RequestError, from_plain
from pipelines.curation.config import CurateConfig
from pipelines.curation.report import render_report
from pipelines.curation.report_facts import ReportFacts
from pipelines.curation.report_pictures import FRAME_WIDTH_PX, FRAMES_IN_STRIP
from pipelines.curation.report_rows import ReportRows
from pipelines.curation.verdicts import STAGES, drawn_limits
from pipelines.lineage.manifest import Dataset
from pipelines.media import MediaError, jpeg_bytes, read_clip_frames
from pipelines.records import Clip
from pipelines.shard_reader import read_sample

TITLES = (*STAGES, ("takedown", "Not taken down"))


def report_of(dataset: Dataset) -> str:
    """The page. Pictures are shown of kept clips alone: of the others no bytes are left.

    Raises RequestError when the settings in dataset.json are not of this code's kind.
    """
    manifest = dataset.manifest
    if "config" not in manifest:
        raise RequestError(f"{dataset.uri}: dataset.json names no settings to draw a report with")
    config = from_plain(CurateConfig, manifest["config"], f"{dataset.uri}/dataset.json")
    counts = manifest["counts"]
    return render_report(
        ReportFacts(
            digest=dataset.digest,
            config=manifest["config"],
            config_hash=manifest["config_hash"],
            rows=ReportRows.of_dataset(dataset.uri),
            num_shards=counts["shards"],
            shard_bytes=counts["shard_bytes"],
            stages=TITLES,
            limits=drawn_limits(config),
            stage_times=(),
            slowest=(),
            frames_of=lambda clip: frames_of(dataset, clip),
            media_of=lambda clip: read_sample(dataset.store, clip),
        )
    )


def frames_of(dataset: Dataset, clip: Clip) -> list[bytes]:
    """JPEGs of frames spread over a kept clip; none of a clip that is in no shard."""
    if clip.shard is None:
        return []
    width_px = FRAME_WIDTH_PX
    height_px = max(2, round(width_px * clip.crop_h_px / max(clip.crop_w_px, 1)))
    fps = FRAMES_IN_STRIP / clip.duration_s if clip.duration_s > 0 else 1.0
    try:
        frames_FHWC = read_clip_frames(
            read_sample(dataset.store, clip),
            fps=fps,
            width_px=width_px,
            height_px=height_px,
            max_frames=FRAMES_IN_STRIP,
        )
    except (MediaError, KeyError):
        return []
    return [jpeg_bytes(frame) for frame in frames_FHWC]
