"""Encoding by the FFmpeg that FFMPEG_BINARY names: the same clips, by another program."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import pytest

from pipelines.config import RequestError
from pipelines.curation.cuts import CutsConfig, cut_all
from pipelines.lineage.fingerprint import fingerprint
from pipelines.media import probe, write_video
from pipelines.media.build import ffmpeg_build
from pipelines.media.program import VARIABLE, program_build
from pipelines.sandbox import calls as sandbox
from tests.pipelines.curation.test_cuts import a_shot
from tests.pipelines.pictures import moving_square, numbered, real_clip

OTHER = imageio_ffmpeg.get_ffmpeg_exe()


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(VARIABLE, OTHER)
    return OTHER


def test_a_video_is_written_by_it_with_the_same_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = moving_square(1, 20)
    given = {"fps": Fraction(30000, 1001), "metadata": {"comment": "a=b; c"}}
    write_video(tmp_path / "ours.mp4", frames, **given)
    monkeypatch.setenv(VARIABLE, OTHER)
    write_video(tmp_path / "theirs.mp4", frames, **given)
    write_video(tmp_path / "again.mp4", frames, **given)
    ours, theirs = probe(tmp_path / "ours.mp4"), probe(tmp_path / "theirs.mp4")
    assert (theirs.num_frames, theirs.width_px, theirs.codec) == (20, 160, "h264")
    assert theirs.fps == pytest.approx(ours.fps)
    assert theirs.duration_s == pytest.approx(ours.duration_s, abs=0.002)
    data = (tmp_path / "theirs.mp4").read_bytes()
    assert data != (tmp_path / "ours.mp4").read_bytes()
    assert data == (tmp_path / "again.mp4").read_bytes()
    assert b"a=b; c" in data


def test_uneven_times_are_kept(tmp_path: Path, other: str) -> None:
    pts = [0, 3, 4, 9, 10, 17]
    write_video(tmp_path / "v.mp4", numbered(6), fps=10, frame_pts=pts, time_base=Fraction(1, 50))
    with av.open(str(tmp_path / "v.mp4")) as file:
        times = [round(float(frame.time) * 50) for frame in file.decode(video=0)]
    assert times == pts


def test_clips_are_cut_by_it_in_the_sandbox(tmp_path: Path, monkeypatch) -> None:
    """In the child process, whose only program it is; checked frame by frame against the source."""
    source = real_clip("bikes.mp4")
    clips = [a_shot(30, 76), a_shot(76, 137)]
    config = CutsConfig(method="encode", leak_share=1.0)
    monkeypatch.setenv(VARIABLE, OTHER)
    sandbox.stop()  # the next is started with the variable
    try:
        cuts = list(cut_all(source, tmp_path, clips, config))
    finally:
        monkeypatch.delenv(VARIABLE)
        sandbox.stop()
    assert [cut.failure for cut in cuts] == [None, None]
    assert all(cut.leak and cut.leak.is_clean for cut in cuts)
    assert [probe(cut.path).num_frames for cut in cuts] == [46, 61]


def test_a_program_that_fails_says_why_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    script = tmp_path / "ffmpeg"
    script.write_text("#!/bin/sh\necho the disk is on fire >&2\nexit 3\n")
    script.chmod(0o755)
    monkeypatch.setenv(VARIABLE, str(script))
    with pytest.raises(ValueError, match=f"{VARIABLE}: the disk is on fire"):
        write_video(tmp_path / "v.mp4", moving_square(1, 40), fps=25)
    assert not (tmp_path / "v.mp4").exists()


def test_it_is_part_of_what_names_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert program_build() is None and "encoder" not in ffmpeg_build()
    before = fingerprint()
    monkeypatch.setenv(VARIABLE, OTHER)
    assert ffmpeg_build()["encoder"] == program_build()
    assert set(program_build() or {}) == {"version", "configuration_sha256"}
    assert fingerprint() != before


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("/no/such/ffmpeg", "no such program"),
        ("/bin/echo", "does not say that it is an FFmpeg"),
        ("script", "has no encoder libx264"),
    ],
)
def test_what_is_no_ffmpeg_is_one_line(
    named: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if named == "script":
        script = tmp_path / "ffmpeg"
        script.write_text("#!/bin/sh\necho ffmpeg version 9\necho configuration: none\n")
        script.chmod(0o755)
        named = str(script)
    monkeypatch.setenv(VARIABLE, named)
    with pytest.raises(RequestError, match=words) as caught:
        program_build()
    assert "\n" not in str(caught.value)
