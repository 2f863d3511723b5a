from __future__ import annotations

import ast

import pytest

from pipelines.curation.stage_code import closure_of, code_of, without_words

CODE = '''
"""A module."""
import numpy as np

def double(x):
    """Twice."""
    return 2 * x  # because
'''


def dump(source: str) -> str:
    return ast.dump(without_words(source))


def test_words_decide_nothing_and_code_does() -> None:
    reworded = CODE.replace("Twice.", "Two times.").replace("because", "why not")
    assert dump(reworded.replace("A module.", "One.")) == dump(CODE)
    assert dump(CODE.replace("2 * x", "3 * x")) != dump(CODE)


@pytest.mark.parametrize(
    ("module", "holds", "leaves"),
    [
        ("watch", "pipelines.curation.shots", "pipelines.curation.captions"),
        ("watch", "pipelines.media.opening", "pipelines.media.cut"),
        ("cuts", "pipelines.media.cut", "pipelines.curation.shots"),
        ("scorer", "model.encoders", "pipelines.curation.shots"),
        ("captioners", "pipelines.curation.captions", "pipelines.config"),
        ("watch", "pipelines.media.program", "pipelines.sandbox.calls"),
    ],
)
def test_a_stage_is_named_by_its_own_code_and_all_that_it_calls(
    module: str, holds: str, leaves: str
) -> None:
    found = closure_of(f"pipelines.curation.{module}")
    assert holds in found and leaves not in found


def test_stages_differ() -> None:
    stages = ("watch", "captioners", "scorer", "cuts")
    assert len({code_of(f"pipelines.curation.{stage}") for stage in stages}) == 4
