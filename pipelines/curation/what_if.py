"""`--what-if`: the funnel at other thresholds, from the scores that a dataset already holds.

A verdict is a pure function of scores and settings, and `clips.parquet` holds the scores of every
clip ever found. So the same judges answer in seconds, without footage, models or Ray, and nothing
is written. What the rows cannot tell is said, not guessed: a clip that was dropped before the
models saw it has no caption and no score, and is `unknown` if it now passes so far.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.config import RequestError, from_plain, leaf_fields, parse_request, to_plain
from pipelines.curation import captions
from pipelines.curation.config import CurateConfig
from pipelines.curation.duplicates import drop_duplicates
from pipelines.curation.taken_down import taken_down_before
from pipelines.curation.tiers import assign_tiers
from pipelines.curation.verdicts import (
    JUDGES,
    TAKEN_DOWN,
    drawn_limits,
    is_taken_down,
    judge_measured,
    judge_scored,
)
from pipelines.lineage.manifest import Dataset, read_dataset
from pipelines.lineage.tombstones import Tombstones, tombstones_of
from pipelines.records import Clip, from_table

UNKNOWN = "unknown"

#: Settings that decide by stored scores alone: a whole section (ends in "."), or one field.
SIMULATED = (
    *(f"{section}." for section, _, _ in JUDGES),
    "clip_score.min_score",
    "clip_score.min_consistency",
    "nsfw.max_score",
    *(f"captions.{name}" for name in ("min_words", "max_repeats", "scripts", "languages")),
    "duplicates.",
    "tiers.",
    "tombstones",
)


RIGHTS_SETTINGS = frozenset(
    f"limits.{name}"
    for name in ("licenses", "refused_licenses", "require_consent", "honour_refusals")
)


@dataclass(frozen=True)
class WhatIf:
    """One question: a dataset as it is, and the settings to judge it by instead."""

    dataset: Dataset
    recorded: CurateConfig
    wanted: CurateConfig
    #: What the dataset left out, and what a curation of the same footage would leave out today.
    own: Tombstones = field(default_factory=Tombstones)
    tombstones: Tombstones = field(default_factory=Tombstones)
    warnings: tuple[str, ...] = ()

    @property
    def changed(self) -> dict[str, tuple[Any, Any]]:
        """Name of each setting that differs: (recorded, wanted)."""
        before, after = _leaves(self.recorded), _leaves(self.wanted)
        return {n: (before[n], after[n]) for n in before if before[n] != after[n]}


@dataclass(frozen=True)
class Answer:
    """The same clips in the same order: as the dataset says, and as they would be judged."""

    now: list[Clip]
    then: list[Clip]
    notes: list[str]


def read_question(argv: Sequence[str]) -> WhatIf:
    """From the command line (without `--what-if`); what is not given is as the dataset says.

    Raises RequestError when there is no such dataset, or a setting needs the footage or a model.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--dataset", default="")
    given, _ = finder.parse_known_args(list(argv))
    if not given.dataset:
        raise RequestError("curate.py: --what-if needs the --dataset to ask about (see --help)")
    dataset = read_dataset(given.dataset)
    recorded = replace(
        from_plain(CurateConfig, dataset.manifest["config"], f"{dataset.uri}/dataset.json"),
        footage="not needed",
        dataset=given.dataset,
    )
    request = parse_request(
        CurateConfig,
        {"recorded": lambda: recorded},
        argv,
        prog="curate.py --what-if",
        description="",
        default_preset="recorded",
    )
    wanted = replace(request.config, footage=recorded.footage)
    own = [] if dataset.tombstones is None else dataset.tombstones.to_pylist()
    down = taken_down_before(wanted, dataset.store, takedowns=())
    in_force = tombstones_of([*own, *down.rows])
    question = WhatIf(dataset, recorded, wanted, tombstones_of(own), in_force, down.warnings)
    for name in question.changed:
        if not name.startswith(SIMULATED):
            raise RequestError(
                f"--what-if: {name} cannot be answered from stored scores; "
                "curate into a new --dataset, which watches no unchanged footage again"
            )
    return question


def answer(question: WhatIf) -> Answer:
    now = read_clips(question.dataset)
    then = rejudged(now, question.wanted, question.tombstones)
    return Answer(now, then, list(_notes(question, now, then)))


def read_clips(dataset: Dataset) -> list[Clip]:
    """The rows of `clips.parquet`; embeddings stay arrays, or they would be most of the time."""
    table = dataset.clips
    vectors = _vectors(table["embedding"].combine_chunks())
    clips = from_table(Clip, table.drop_columns(["embedding"]))
    return [
        replace(clip, embedding=vector)  # type: ignore[arg-type]
        for clip, vector in zip(clips, vectors, strict=True)
    ]


def rejudged(
    stored: Sequence[Clip], config: CurateConfig, tombstones: Tombstones | None = None
) -> list[Clip]:
    """The clips as they would leave curation, their verdict kept, dropped or `unknown`.

    What was taken down stays down, whatever it is worth; a worse copy of it stays dropped.
    """
    down = {c.clip_id for c in stored if _is_down(c, tombstones or Tombstones())}
    judged = [_judged(clip, config) for clip in stored]
    shadows = {c.clip_id for c in judged if c.clip_id in down and c.verdict != "dropped"}
    judged = [
        _taken_down(clip) if clip.clip_id in down else _copy_of(down, clip, was)
        for clip, was in zip(judged, stored, strict=True)
    ]
    return assign_tiers(drop_duplicates(judged, config.duplicates, shadows), config.tiers)


def differs(a: Clip, b: Clip) -> bool:
    """True when the two verdicts on one clip are not the same in all they say."""
    said = ("verdict", "reason_stage", "reason", "duplicate_of", "tiers")
    return any(getattr(a, name) != getattr(b, name) for name in said)


def _judged(stored: Clip, config: CurateConfig) -> Clip:
    fresh = replace(
        stored, verdict="kept", reason_stage=None, reason=None, duplicate_of=None, tiers=[]
    )
    clip = judge_measured(fresh, config)
    if clip.verdict == "dropped":
        return clip
    if clip.captioner is None:  # dropped so early that no model saw it
        return replace(clip, verdict=UNKNOWN)
    if clip.caption is None:
        return clip.dropped("captions", stored.reason or "caption_empty")
    clip = captions.judge(clip, config.captions)
    if clip.verdict == "kept" and clip.embedding is None:  # dropped for its words, before scores
        return replace(clip, verdict=UNKNOWN)
    clip = judge_scored(clip, config)
    if stored.reason_stage == "cuts":
        return clip.dropped("cuts", stored.reason or "cut_failed")
    return clip


def _is_down(clip: Clip, tombstones: Tombstones) -> bool:
    if is_taken_down(clip):
        return True
    return tombstones.covers(clip.clip_id, clip.source_id, clip.start_frame, clip.end_frame)


def _taken_down(clip: Clip) -> Clip:
    fresh = replace(clip, verdict="kept", reason_stage=None, reason=None)
    return fresh.dropped(*TAKEN_DOWN)


def _copy_of(down: Collection[str], clip: Clip, stored: Clip) -> Clip:
    """What was found to be a copy of such a clip, whose own hash is gone, is one still."""
    if stored.duplicate_of not in down or clip.verdict == "dropped":
        return clip
    return replace(clip.dropped("duplicates", "duplicate"), duplicate_of=stored.duplicate_of)


def _notes(question: WhatIf, now: Sequence[Clip], then: Sequence[Clip]) -> Iterator[str]:
    unknown = sum(c.verdict == UNKNOWN for c in then)
    if unknown:
        yield (
            f"{unknown} clips are unknown: not captioned or scored yet, because they were dropped "
            "before; some of them would be kept, and may be better copies of clips counted here"
        )
    yield from _rights_notes(question, now, then)
    before, after = drawn_limits(question.recorded), drawn_limits(question.wanted)
    columns = [c for c in after if c in Clip.__dataclass_fields__ and before[c] != after[c]]
    if "nsfw.max_score" in question.changed and "nsfw" not in columns:
        columns.append("nsfw")
    for column in columns:
        blind = sum(c.verdict == "kept" and getattr(c, column) is None for c in then)
        if blind:
            yield f"{blind} kept clips have no {column}: its threshold does not judge them"
    uncut = sum(
        a.verdict == "kept" and b.verdict == "dropped" for a, b in zip(then, now, strict=True)
    )
    if uncut:
        yield f"{uncut} clips would have to be cut first; a cut that fails would drop its clip"
    at_rest = rejudged(now, question.recorded, question.own)
    strangers = sum(
        differs(a, b) for a, b in zip(at_rest, now, strict=True) if not _is_down(b, question.own)
    )
    if strangers:
        yield (
            f"{strangers} clips are judged otherwise by this version of the code even with the "
            "settings that the dataset records"
        )


def _rights_notes(question: WhatIf, now: Sequence[Clip], then: Sequence[Clip]) -> Iterator[str]:
    yield from question.warnings
    down = sum(is_taken_down(a) and b.verdict == "kept" for a, b in zip(then, now, strict=True))
    if down:
        yield f"{down} clips were taken down since: a curation would leave them out"
    refused = question.dataset.sources["reason"].to_pylist().count("licence_refused")
    if refused and any(name in question.changed for name in RIGHTS_SETTINGS):
        yield f"{refused} files were refused for their rights and never watched: they count nowhere"


def _leaves(config: CurateConfig) -> dict[str, Any]:
    plain = to_plain(config)
    found = {}
    for name, _, _ in leaf_fields(CurateConfig):
        value: Any = plain
        for part in name.split("."):
            value = value[part]
        found[name] = value
    return found


def _vectors(column: pa.ListArray) -> list[np.ndarray | None]:
    values = column.flatten().to_numpy(zero_copy_only=False)
    lengths = np.nan_to_num(column.value_lengths().to_numpy(zero_copy_only=False)).astype(int)
    ends = np.cumsum(lengths)
    return [
        values[end - length : end] if valid else None
        for valid, length, end in zip(
            column.is_valid().to_pylist(), lengths.tolist(), ends.tolist(), strict=True
        )
    ]
