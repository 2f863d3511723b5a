"""What the request refuses, and which of several statements about one file counts.

Within one file: the table, then the files beside it, then the manifest inside it; the first that
states something is believed, but a refusal anywhere wins over an allowance elsewhere. Copies of
one content under several names are bound by all that is stated of any: the strictest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pipelines.curation.rights.stated import NOT_STATED, Rights, stance_of

if TYPE_CHECKING:
    from pipelines.curation.limits import LimitsConfig

_STRICTEST_FIRST = ("no", "constrained", "unknown", "yes", "unstated")


def refuses(rights: Rights, policy: LimitsConfig) -> bool:
    """True for what may not be used."""
    return refuses_license(rights.license, policy) or refuses_consent(rights.consent, policy)


def refuses_license(license_text: str | None, policy: LimitsConfig) -> bool:
    if _names(license_text, policy.refused_licenses):
        return True
    return bool(policy.licenses) and not _names(license_text, policy.licenses)


def refuses_consent(consent: str | None, policy: LimitsConfig) -> bool:
    stance = stance_of(consent)
    if policy.honour_refusals and stance in ("no", "constrained"):
        return True
    return policy.require_consent and stance != "yes"


def merged(by_authority: Sequence[Rights], policy: LimitsConfig) -> Rights:
    """What counts of all that is stated of one file, the highest authority first.

    A constrained permission ("ask us") gives way to a higher place that says yes: it was asked.
    """
    licenses = [r.license for r in by_authority if r.license]
    refused = [name for name in licenses if _names(name, policy.refused_licenses)]
    consents = sorted((r.consent for r in by_authority if r.consent), key=_authority_aside)
    return Rights(
        next(iter([*refused, *licenses]), None),
        next(iter(consents), None),
    )


def strictest(of_copies: Iterable[Rights], policy: LimitsConfig) -> Rights:
    """What binds every copy; the same whatever order they come in."""
    all_stated = list(of_copies)
    licenses = (r.license for r in all_stated if r.license)
    consents = (r.consent for r in all_stated if r.consent)

    def by_strictness(name: str) -> tuple[bool, int, str]:
        return (not refuses_license(name, policy), -restriction(name), name)

    return Rights(
        min(licenses, key=by_strictness, default=None),
        min(consents, key=lambda c: (_STRICTEST_FIRST.index(stance_of(c)), c), default=None),
    )


def restriction(license_text: str) -> int:
    """How much a licence forbids, for an order: 0 the public domain, ..., 100 not known."""
    marks = set(re.split(r"[^a-z0-9]+", license_text.lower()))
    if marks & {"cc0", "pdm", "unlicense"} or {"public", "domain"} <= marks:
        return 0
    if not marks & {"by", "sa", "nc", "nd"}:
        return 100
    weights = {"by": 1, "sa": 2, "nc": 4, "nd": 8}
    return sum(weight for mark, weight in weights.items() if mark in marks)


def _names(license_text: str | None, patterns: Sequence[str]) -> bool:
    name = (license_text or NOT_STATED).lower()
    return any(fnmatchcase(name, pattern.lower()) for pattern in patterns)


def _authority_aside(consent: str) -> int:
    """A no first, what is unknown last; between them the order of authority stays."""
    return {"no": 0, "unknown": 2}.get(stance_of(consent), 1)
