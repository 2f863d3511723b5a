"""A simulated funnel in words: the table a person reads, and the object a program reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.curation.verdicts import stages_of
from pipelines.curation.what_if import UNKNOWN, Answer, WhatIf
from pipelines.records import TIERS, Clip

EXAMPLES_SHOWN = 3


@dataclass(frozen=True)
class Left:
    """What is left of the clips after a stage."""

    clips: int
    hours: float


@dataclass(frozen=True)
class Step:
    stage: str
    title: str
    now: Left
    then: Left


def funnel(answer: Answer) -> list[Step]:
    """From all that was found to what is kept, in the order that a clip meets the stages."""
    titles = dict(stages_of({c.reason for c in (*answer.now, *answer.then) if c.reason}))
    others = {c.reason_stage or "" for c in (*answer.now, *answer.then) if c.verdict == "dropped"}
    stages = [*titles, *sorted(others - set(titles))]
    stages.insert(stages.index("captions"), UNKNOWN)
    columns = [(list(answer.now), list(answer.then))]
    for stage in stages:
        now, then = columns[-1]
        columns.append((_after(now, stage), _after(then, stage)))
    titles |= {UNKNOWN: "Known to the models"}
    steps = [
        Step(s, titles.get(s, s), *map(_left, c)) for s, c in zip(stages, columns[1:], strict=True)
    ]
    return [Step("found", "Found", *map(_left, columns[0])), *steps]


def _after(clips: Sequence[Clip], stage: str) -> list[Clip]:
    if stage == UNKNOWN:
        return [c for c in clips if c.verdict != UNKNOWN]
    return [c for c in clips if not (c.verdict == "dropped" and (c.reason_stage or "") == stage)]


def _left(clips: Sequence[Clip]) -> Left:
    return Left(len(clips), round(sum(c.duration_s for c in clips) / 3600, 4))


# --- for a program ---------------------------------------------------------------------------


def result_of(question: WhatIf, answer: Answer, seconds: float) -> dict[str, Any]:
    """The last line: the dataset as it is, and under `what_if` how it would be."""
    now, then = (Counter(c.verdict for c in clips) for clips in (answer.now, answer.then))
    steps = funnel(answer)
    return {
        "dataset": question.dataset.uri,
        "digest": question.dataset.digest,
        "clips": len(answer.now),
        "kept": now["kept"],
        "dropped": now["dropped"],
        "seconds": round(seconds, 2),
        "what_if": {
            "changed": {name: list(values) for name, values in question.changed.items()},
            "kept": then["kept"],
            "dropped": then["dropped"],
            "unknown": then[UNKNOWN],
            "kept_hours": [steps[-1].now.hours, steps[-1].then.hours],
            "stages": {s.stage: [s.now.clips, s.then.clips] for s in steps},
            "reasons": _counted(answer, lambda c: [c.reason] if c.verdict == "dropped" else []),
            "tiers": dict.fromkeys(TIERS, (0, 0)) | _counted(answer, lambda c: c.tiers),
            "examples": examples(answer),
            "notes": answer.notes,
        },
    }


def _counted(answer: Answer, names: Callable[[Clip], Sequence[str | None]]) -> dict[str, Any]:
    """(now, then) by name, in order of name."""
    now, then = (Counter(str(n) for c in cs for n in names(c)) for cs in (answer.now, answer.then))
    return {name: (now[name], then[name]) for name in sorted({*now, *then})}


def examples(answer: Answer) -> dict[str, list[str]]:
    """A few clip ids of each way a clip could change, smallest first."""
    found: dict[str, list[str]] = {"would_come": [], "would_go": [], "cannot_tell": []}
    for now, then in sorted(
        zip(answer.now, answer.then, strict=True), key=lambda pair: pair[0].clip_id
    ):
        if then.verdict == UNKNOWN:
            found["cannot_tell"].append(f"{now.clip_id} (was {now.reason})")
        elif now.verdict != "kept" and then.verdict == "kept":
            found["would_come"].append(f"{now.clip_id} (was {now.reason})")
        elif now.verdict == "kept" and then.verdict != "kept":
            found["would_go"].append(f"{now.clip_id} ({then.reason})")
    return {way: ids[:EXAMPLES_SHOWN] for way, ids in found.items()}


# --- for a person ----------------------------------------------------------------------------


def table_of(question: WhatIf, answer: Answer) -> str:
    """The funnel now and then, reasons, tiers, examples, and what cannot be told."""
    changes = [f"  {name}  {a} -> {b}" for name, (a, b) in question.changed.items()]
    sources = question.dataset.sources
    footage_s = sum(s or 0.0 for s in sources["duration_s"].to_pylist())
    lines = [
        f"what if, in {question.dataset.uri}",
        f"  digest {question.dataset.digest}, {sources.num_rows} files, "
        f"{footage_s / 3600:.2f} h of footage",
        *(changes or ["  nothing changed"]),
        "",
        f"{'':28}{'now':>18}   {'then':>18}",
        *(_line(step) for step in funnel(answer)),
    ]
    said = result_of(question, answer, 0.0)["what_if"]
    for title in ("reasons", "tiers"):
        lines += ["", title, *(_count_line(n, *counts) for n, counts in said[title].items())]
    for way, ids in said["examples"].items():
        if ids:
            lines += ["", f"{way.replace('_', ' ')}, e.g.", *(f"  {i}" for i in ids)]
    return "\n".join([*lines, "", *(f"note: {note}" for note in answer.notes)]).rstrip()


def _line(step: Step) -> str:
    now, then = (f"{x.clips:7d} {x.hours:8.3f} h" for x in (step.now, step.then))
    return f"{step.title:28}{now:>18}   {then:>18}   {_change(step.then.clips - step.now.clips)}"


def _count_line(name: str, now: int, then: int) -> str:
    return f"  {name:26}{now:7d} -> {then:7d}   {_change(then - now)}"


def _change(clips: int) -> str:
    return f"{clips:+d}" if clips else "="
