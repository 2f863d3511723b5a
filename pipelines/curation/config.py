"""The curation job's configuration: a section for every judge, and two presets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipelines.config import ClusterConfig, TrackingConfig, required, setting, to_plain
from pipelines.curation.captions import CaptionsConfig
from pipelines.curation.clip_score import ClipScoreConfig
from pipelines.curation.cuts import CutsConfig
from pipelines.curation.duplicates import DuplicatesConfig
from pipelines.curation.limits import LimitsConfig
from pipelines.curation.motion import MotionConfig
from pipelines.curation.nsfw import NsfwConfig
from pipelines.curation.overlay_text import OverlayTextConfig
from pipelines.curation.quality import QualityConfig
from pipelines.curation.resources import ResourcesConfig
from pipelines.curation.shards import ShardsConfig
from pipelines.curation.single_shot import SingleShotConfig
from pipelines.curation.tiers import TiersConfig
from pipelines.curation.watch import WatchConfig

#: What decides where and how the work runs, never what comes out of it.
NOT_PART_OF_RESULT = frozenset(
    {
        *("footage", "dataset", "work", "parent", "rights", "tombstones"),
        *("resources", "cluster", "tracking"),
    }
)


@dataclass(frozen=True)
class CurateConfig:
    """One request to curate a folder of footage into a dataset."""

    footage: str = required("folder or prefix with the raw footage")
    dataset: str = required("where the dataset is written; must not hold a complete one")
    work: str = setting(
        "",
        "folder of what was watched, said and scored, shared by datasets so that nothing is done "
        "twice; empty: _work beside the dataset",
    )
    parent: str = setting(
        "", "complete dataset that this is the next version of; its digest is written down"
    )
    rights: str = setting(
        "",
        "CSV with columns file (or source_id), license, consent, note; believed before files "
        "beside the footage, but a no anywhere stands; a wrong column ends the job, a line that "
        "names no file is a warning",
    )
    tombstones: tuple[str, ...] = setting(
        (),
        "datasets, or tombstones.parquet files, of what was taken down; those of the parent, of "
        "datasets beside this one and of tracked takedowns are honoured unasked",
    )
    watch: WatchConfig = field(default_factory=WatchConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    single_shot: SingleShotConfig = field(default_factory=SingleShotConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    overlay_text: OverlayTextConfig = field(default_factory=OverlayTextConfig)
    captions: CaptionsConfig = field(default_factory=CaptionsConfig)
    clip_score: ClipScoreConfig = field(default_factory=ClipScoreConfig)
    nsfw: NsfwConfig = field(default_factory=NsfwConfig)
    duplicates: DuplicatesConfig = field(default_factory=DuplicatesConfig)
    tiers: TiersConfig = field(default_factory=TiersConfig)
    cuts: CutsConfig = field(default_factory=CutsConfig)
    shards: ShardsConfig = field(default_factory=ShardsConfig)
    resources: ResourcesConfig = field(default_factory=ResourcesConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def demo() -> CurateConfig:
    """Small embedded models, low limits: everything shows itself on a few minutes of footage.

    As in the paper, a clip is high-resolution when it fills the refinement stage's picture; here
    that is 320x180.
    """
    return CurateConfig(
        limits=LimitsConfig(min_duration_s=1.0, min_width_px=200, min_height_px=120),
        tiers=TiersConfig(high_res_width_px=320, high_res_height_px=180),
        cuts=CutsConfig(leak_share=1.0),
        shards=ShardsConfig(max_samples=64, max_bytes=64 << 20),
    )


def paper() -> CurateConfig:
    """The paper's sizes, with models of general use (fetched from the hub by name)."""
    return CurateConfig(
        captions=CaptionsConfig(backend="coca:coca_ViT-L-14:mscoco_finetuned_laion2B-s13B-b90k"),
        clip_score=ClipScoreConfig(model="ViT-H-14:laion2b_s32b_b79k", min_score=0.18),
        tiers=TiersConfig(high_res_width_px=1280, high_res_height_px=720),
    )


PRESETS = {"demo": demo, "paper": paper}


def result_settings(config: CurateConfig) -> dict[str, Any]:
    """The settings that decide the dataset: equal ones on equal footage give an equal digest."""
    plain = to_plain(config)
    return {name: value for name, value in plain.items() if name not in NOT_PART_OF_RESULT}
