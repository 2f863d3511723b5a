"""Which statement counts, and what a policy makes of it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.curation.limits import LimitsConfig, judge
from pipelines.curation.rights.policy import merged, refuses, restriction, strictest
from pipelines.curation.rights.stated import Rights, as_text, stance_of
from tests.pipelines.curation.clips_of import a_clip

ANY = LimitsConfig()
C2PA_NO = "no (c2pa.ai_generative_training: notAllowed)"
C2PA_ASK = "constrained (c2pa.data_mining: constrained)"
WORDS = (None, "yes", "no", C2PA_NO, C2PA_ASK, "unknown (C2PA manifest: broken)", "contract 12")


@pytest.mark.parametrize(
    ("consent", "stance"),
    [
        (None, "unstated"),
        ("  ", "unstated"),
        ("yes", "yes"),
        ("contract 12", "yes"),
        ("no restrictions", "yes"),
        ("nobody objects", "yes"),
        ("No", "no"),
        ("no AI training", "no"),
        ("not for models", "no"),
        ("Refused by mail", "no"),
        ("withdrawn", "no"),
        ("declined", "no"),
        ("Opt-out", "no"),
        ("expired 2024", "no"),
        ("N", "no"),
        ("0", "no"),
        ("007-contract", "yes"),
        ("never expires", "no"),  # a no is a no: whoever means yes can say it
        ("perhaps", "unknown"),
        ("n/a", "unknown"),
        ("-", "unknown"),
        (C2PA_NO, "no"),
        (C2PA_ASK, "constrained"),
        ("unknown", "unknown"),
        ("none", "unknown"),
    ],
)
def test_what_a_consent_comes_to(consent: str | None, stance: str) -> None:
    assert stance_of(consent) == stance


@pytest.mark.parametrize(
    ("rights", "policy", "is_refused"),
    [
        (Rights(), {}, False),
        (Rights("CC-BY-4.0"), {"licenses": ("cc-by-*",)}, False),
        (Rights("CC-BY-NC-4.0"), {"licenses": ("CC-BY-*",)}, False),
        (Rights("CC-BY-NC-4.0"), {"licenses": ("CC-*",), "refused_licenses": ("*-NC-*",)}, True),
        (Rights("CC0-1.0"), {"licenses": ("CC-BY-*",)}, True),
        (Rights(), {"licenses": ("CC0-1.0",)}, True),
        (Rights(), {"licenses": ("CC0-1.0", "not stated")}, False),
        (Rights(), {"refused_licenses": ("not stated",)}, True),
        (Rights(consent="no"), {}, True),
        (Rights(consent=C2PA_ASK), {}, True),
        (Rights(consent="no"), {"honour_refusals": False}, False),
        (Rights(consent="no"), {"honour_refusals": False, "require_consent": True}, True),
        (Rights(consent="yes"), {"require_consent": True}, False),
        (Rights(), {"require_consent": True}, True),
        (Rights(consent="unknown"), {"require_consent": True}, True),
        (Rights(consent="unknown"), {}, False),
    ],
)
def test_what_a_policy_refuses(rights: Rights, policy: dict[str, Any], is_refused: bool) -> None:
    config = LimitsConfig(**policy)
    assert refuses(rights, config) == is_refused
    judged = judge(a_clip(license=rights.license, consent=rights.consent), config)
    assert (judged.reason == "licence_refused") == is_refused


def test_the_higher_authority_is_believed_unless_another_refuses() -> None:
    def consent(*by_authority: str | None) -> str | None:
        return merged([Rights(consent=c) for c in by_authority], ANY).consent

    assert consent("contract 12", "yes") == "contract 12"
    assert consent(None, "yes") == "yes"
    assert consent("yes", None, C2PA_NO) == C2PA_NO
    assert consent("no", "yes", C2PA_NO) == "no"
    assert consent("yes", None, C2PA_ASK) == "yes"  # it said: ask; somebody did
    assert consent(None, None, C2PA_ASK) == C2PA_ASK
    assert consent("unknown", "yes") == "yes"
    nc = LimitsConfig(refused_licenses=("*-NC-*",))
    stated = [Rights("CC-BY-4.0"), Rights("CC-BY-NC-4.0")]
    assert merged(stated, ANY).license == "CC-BY-4.0"
    assert merged(stated, nc).license == "CC-BY-NC-4.0"


def test_copies_are_bound_by_the_strictest_licence() -> None:
    rising = ("CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-NC-4.0", "CC-BY-NC-ND-4.0", "ACME")
    assert sorted(rising, key=restriction) == list(rising)
    for a, b in itertools.combinations(rising, 2):
        assert strictest([Rights(a), Rights(b), Rights()], ANY).license == b
    cc0 = LimitsConfig(licenses=("ACME",))  # what the policy refuses is stricter than any other
    assert strictest([Rights("ACME"), Rights("CC0-1.0")], cc0).license == "CC0-1.0"


@given(st.lists(st.builds(Rights, st.sampled_from((None, "CC0-1.0", "X")), st.sampled_from(WORDS))))
def test_the_order_of_copies_decides_nothing_and_no_refusal_is_lost(copies: list[Rights]) -> None:
    found = strictest(copies, ANY)
    assert strictest(copies[::-1], ANY) == found
    assert refuses(found, ANY) == any(refuses(r, ANY) for r in copies)
    says_no = [r for r in copies if stance_of(r.consent) == "no"]
    assert (stance_of(merged(copies, ANY).consent) == "no") == bool(says_no)


def test_text_of_a_stranger_is_one_short_line() -> None:
    assert as_text("a\n\x1b[31mb\u202e" + "c" * 999) == ("a \ufffd[31mb\ufffd" + "c" * 999)[:200]
    assert (as_text(True), as_text(3), as_text(" \n")) == ("yes", None, None)
