"""What is stated of a file: a licence and a consent, in the words they were given in.

Consent is free text of which only the stance is understood. Whatever begins with a no is a no:
"no AI training" must never count as a yes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

#: In which a licence or a consent that nobody stated is counted, and matched by a policy.
NOT_STATED = "not stated"
MAX_CHARACTERS = 200

Stance = Literal["no", "constrained", "unknown", "yes", "unstated"]

_NO = re.compile(
    r"(no|not|n|0|f|nein|non|never|false|withdrawn|revoked|expired|notallowed|opt(ed)?[- ]?out"
    r"|refuse[sd]?|den(y|ies|ied)|decline[sd]?|reject(s|ed)?|forbid(s|den)?|prohibit(s|ed)?)\b"
    r"(?!\s+(restriction|objection|limit|condition))"
)
_CONSTRAINED = re.compile(r"(constrained|conditional|restricted)\b")
_UNKNOWN = re.compile(r"(unknown|none|unclear|pending|perhaps|maybe|tbd|n/a|\?|-|–)")


@dataclass(frozen=True)
class Rights:
    """What one place says of a file; None where it says nothing."""

    license: str | None = None
    consent: str | None = None


def stance_of(consent: str | None) -> Stance:
    """What a stated consent comes to. Words that are none of ours count as consent that was
    stated, as a name or a number of a contract does."""
    text = (consent or "").strip().lower()
    if not text:
        return "unstated"
    if _UNKNOWN.match(text):
        return "unknown"
    if _NO.match(text):
        return "no"
    return "constrained" if _CONSTRAINED.match(text) else "yes"


def as_text(value: object) -> str | None:
    """A value that a stranger wrote, as one short line; None where it says nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, str):
        return None
    line = " ".join(value.split())
    readable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
    return readable[:MAX_CHARACTERS] or None
