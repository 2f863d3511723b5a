"""The plan: paths hold the hash of what they come from, so a change never overwrites."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipelines.cascade.plan import (
    CascadeConfig,
    check_request,
    footage_identity,
    plan_cascade,
)
from pipelines.config import RequestError


@pytest.fixture
def config(tmp_path: Path) -> CascadeConfig:
    (tmp_path / "footage").mkdir()
    (tmp_path / "footage" / "a.mp4").write_bytes(b"a film")
    return CascadeConfig(footage=str(tmp_path / "footage"), out=str(tmp_path / "out"))


def outputs(config: CascadeConfig, preset: str = "demo", identity: str = "f") -> dict[str, str]:
    return {n.name: n.output for n in plan_cascade(config, preset, identity)}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after[name]}


def test_each_job_reads_what_an_earlier_one_made(config: CascadeConfig) -> None:
    nodes = plan_cascade(config, "demo", "f")
    done: set[str] = set()
    for node in nodes:
        assert set(node.reads) <= done
        done.add(node.name)
        for parent in node.reads:
            assert next(n.output for n in nodes if n.name == parent) in node.arguments
    assert len({n.output for n in nodes}) == len(nodes) == 6


def test_an_equal_request_finds_equal_paths(config: CascadeConfig) -> None:
    assert outputs(config) == outputs(dataclasses.replace(config))


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        ({"prompt": "a star falls", "image": "i.png"}, {"video"}),
        ({"refine_steps": 7}, {"refine", "video"}),
        ({"steps": 7}, {"base", "refine", "video"}),
        ({"seed": 7}, {"base", "refine", "video"}),
    ],
)
def test_a_change_moves_what_follows_from_it_and_nothing_else(
    config: CascadeConfig, change: dict, moves: set[str]
) -> None:
    assert changed(outputs(config), outputs(dataclasses.replace(config, **change))) == moves


def test_other_footage_or_another_preset_moves_everything(config: CascadeConfig) -> None:
    before = outputs(config)
    assert changed(before, outputs(config, identity="g")) == set(before)
    assert changed(before, outputs(config, preset="paper")) == set(before)


def test_a_configuration_file_counts_by_its_words(config: CascadeConfig, tmp_path: Path) -> None:
    file = tmp_path / "base.yaml"
    file.write_text("loop: {log_every: 1}")
    with_file = dataclasses.replace(config, train_base_config=str(file))
    first = outputs(with_file)
    assert changed(outputs(config), first) == {"base", "refine", "video"}
    file.write_text("loop: {log_every: 2}")
    assert changed(first, outputs(with_file)) == {"base", "refine", "video"}


def test_footage_is_told_apart_by_what_is_in_it(config: CascadeConfig) -> None:
    folder = Path(config.footage)
    first = footage_identity(config.footage)
    assert footage_identity(config.footage) == first
    (folder / "b.mp4").write_bytes(b"another")
    assert footage_identity(config.footage) != first


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"footage": "/no/such"}, "no such folder"),
        ({"image": "/no/such.png", "prompt": "x"}, "no such file"),
        ({"encode_config": "/no/such.yaml"}, "no such configuration file"),
    ],
)
def test_a_wrong_request_is_one_line(config: CascadeConfig, change: dict, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        check_request(dataclasses.replace(config, **change))


def test_a_picture_without_words_is_refused(config: CascadeConfig) -> None:
    image = Path(config.footage) / "a.mp4"
    with pytest.raises(RequestError, match="without --prompt"):
        check_request(dataclasses.replace(config, image=str(image)))
