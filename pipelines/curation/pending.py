"""What is left to do for a source, by what is committed of it."""

from __future__ import annotations

from pipelines.curation.committed import (
    commits_of,
    passed_clips,
    raw_captions,
    scores_of,
    still_caption,
)
from pipelines.curation.work import Work
from pipelines.records import Clip, Source


def uncaptioned(work: Work, source: Source) -> list[Clip]:
    """The clips that the captioner has still to see; with texts beside the films, all of them."""
    done = {} if work.texts_beside else raw_captions(work, source.source_id)
    return [c for c in passed_clips(work, source) if c.clip_id not in done]


def unscored(work: Work, source: Source) -> dict[str, str]:
    """The texts still to be scored, by clip_id, among the captioned clips."""
    captions = raw_captions(work, source.source_id)
    done = scores_of(work, source.source_id, ["clip_id", "text"])
    passed = (c.clip_id for c in passed_clips(work, source) if c.clip_id in captions)
    texts = ((clip_id, still_caption(work, captions[clip_id])) for clip_id in passed)
    return {clip_id: text for clip_id, text in texts if text and (clip_id, text) not in done}


def described(work: Work, source: Source) -> bool:
    """True when nothing is left to watch, caption or score: an earlier run did all of it."""
    commits = commits_of(work, source)
    return commits is not None and commits.is_described(work)
