"""A command line over a file over a preset; what is wrong is refused in one line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipelines.config import Request, RequestError, parse_request
from tests.pipelines.config.example import Example, Shots


def loose() -> Example:
    return Example(shots=Shots(threshold=9.0))


def parse(*argv: str) -> Request[Example]:
    presets = {"demo": Example, "loose": loose}
    return parse_request(Example, presets, list(argv), prog="example.py", description="An example.")


def test_the_command_line_is_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("shots:\n  threshold: 5\n  sizes_px: [4, 5, 6]\n")
    base = ["--footage", "f", "--preset", "loose"]
    assert parse(*base).config.shots.threshold == 9.0
    assert parse(*base, "--config", str(file)).config.shots.threshold == 5.0
    request = parse(*base, "--config", str(file), "--shots.threshold", "7")
    assert request.config.shots.threshold == 7.0
    assert request.config.shots.sizes_px == (4, 5, 6)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--footage", "f", "--shots.threshold", "many"], "'many' is not a number"),
        (["--footage", "f", "--shots.threshold", "-1"], "must be at least 0"),
        (["--footage", "f", "--shots.threshold", "nan"], "finite"),
        (["--footage", "f", "--shots.detector", "psychic"], "'psychic' is not one of adaptive"),
        (["--footage", "f", "--shots.guard", "maybe"], "neither true nor false"),
        (["--footage", "f", "--shots.limit", "1.5"], "not a whole number"),
        (["--footage", "f", "--shots.sizes_px", "1,x"], "'x' is not a whole number"),
        (["--footage", "f", "--shots.tresh", "1"], "--shots.tresh"),
        (["--footage", "f", "--preset", "huge"], "invalid choice"),
        (["--footage", "f", "--config", "/no/such.yaml"], "No such file"),
        ([], "--footage must be given"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(argv: list[str], words: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(*argv)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("shots: 3", "is a section"),
        ("shots:\n  treshold: 1", "did you mean 'threshold'"),
        ("- a\n- b", "expected `name: value`"),
        ("a: [", "not YAML"),
        ("\x00", "not YAML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(RequestError, match=re.escape(words)) as caught:
        parse("--footage", "f", "--config", str(file))
    assert "\n" not in str(caught.value)


def test_help_shows_every_setting_with_unit_and_default(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        parse("--help")
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "--shots.threshold X",
        "[sigma] (default: 3.0)",
        "(required)",
        "adaptive|content",
    ):
        assert words in shown
