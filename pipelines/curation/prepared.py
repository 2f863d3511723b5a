"""What is checked before anything starts, and how the run's results are named."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from pipelines.curation.captioners import check_backend
from pipelines.curation.commit_log import commit_key
from pipelines.curation.committed import Work
from pipelines.curation.config import CurateConfig
from pipelines.curation.ingest import Found, list_footage
from pipelines.curation.publish import refuse_complete
from pipelines.storage import Store


@dataclass(frozen=True)
class Prepared:
    """A request that can be met, as far as can be known without Ray."""

    config: CurateConfig
    store: Store
    files: list[Found]


def prepare(config: CurateConfig) -> Prepared:
    """Checks the request and lists the footage. Raises RequestError."""
    store = Store.open(config.dataset)
    refuse_complete(store)
    files = list_footage(config.footage)
    check_backend(config.captions)
    return Prepared(config, store, files)


def work_of(config: CurateConfig, store: Store) -> Work:
    """Names every stage's results by all that decides them, and by nothing else."""
    captions, score = config.captions, config.clip_score
    words = [captions.backend, captions.model, captions.prompt, captions.frames]
    keys = {
        "watch": commit_key("watch", config.watch),
        "captions": commit_key(
            "captions", config.watch, words, captions.clips_per_batch, weights_of(captions.backend)
        ),
        "scores": commit_key(
            "scores",
            config.watch,
            [score.model, score.aesthetic_weights, score.frames_per_batch],
            weights_of(score.model),
        ),
        "cuts": commit_key("cuts", config.watch, config.cuts.crf, config.cuts.preset),
    }
    return Work(store.uri, config, keys, captions.backend, run_id=uuid.uuid4().hex[:12])


def weights_of(model: str) -> dict[str, str]:
    """The embedded weights' sha256: retrained under the same name, they say something else."""
    if not model.endswith("embedded"):
        return {}
    from model.encoders import asset_digests

    return asset_digests()
