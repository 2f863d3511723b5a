from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipelines.curation.committed import CUTS_SCHEMA, table_of
from pipelines.curation.cuts import Cut, CutsConfig, checked, cut_all, cut_counts, order_of
from pipelines.curation.leak import Leak
from pipelines.media import CutResult, cut_clips, probe, read_image, write_image
from pipelines.records import Clip
from pipelines.sandbox.calls import SandboxConfig
from tests.pipelines.curation.clips_of import a_clip
from tests.pipelines.pictures import real_clip, scenery

SHOTS = ((0, 30), (30, 76), (76, 137), (137, 187), (187, 242), (242, 250))
ALL_CHECKED = CutsConfig(leak_share=1.0)


def a_shot(start: int, end: int, **changes: object) -> Clip:
    size = {"width_px": 640, "height_px": 272, "crop_w_px": 640, "crop_h_px": 272}
    return a_clip(1, start_frame=start, end_frame=end, **{**size, **changes})


def cut_bikes(folder: Path, clips: list[Clip], config: CutsConfig) -> list[Cut]:
    return list(cut_all(real_clip("bikes.mp4"), folder, clips, config))


def test_every_shot_of_a_film_is_cut_checked_and_said_how(tmp_path: Path) -> None:
    clips = [a_shot(*shot) for shot in SHOTS] + [a_shot(70, 200), a_shot(3, 29)]
    cuts = cut_bikes(tmp_path, clips[::-1], ALL_CHECKED)
    assert [c.clip.start_frame for c in cuts] == sorted(c.start_frame for c in clips)
    for cut in cuts:
        assert cut.result and cut.path.stat().st_size == cut.result.size_bytes
        assert probe(cut.path).num_frames == cut.clip.end_frame - cut.clip.start_frame
    rows = [cut.row() for cut in cuts]
    assert table_of(rows, CUTS_SCHEMA).num_rows == len(clips)
    assert cut_counts(rows) == {
        "cuts": {"copied": 6, "copied_with_edges": 1, "encoded": 1},
        "cut_again": 0,
        "leak_checked": 8,
        "leak_frames": 0,
        "lost_frames": 0,
    }


def test_a_crop_and_the_method_encode_are_encoded(tmp_path: Path) -> None:
    (cropped,) = cut_bikes(tmp_path, [a_shot(30, 76, crop_y_px=20, crop_h_px=230)], ALL_CHECKED)
    assert cropped.result and cropped.leak == Leak(0, 0)
    assert (cropped.result.method, cropped.result.height_px) == ("encoded", 230)
    (encoded,) = cut_bikes(tmp_path, [a_shot(30, 76)], CutsConfig(method="encode", leak_share=0))
    assert encoded.result and (encoded.result.method, encoded.leak) == ("encoded", None)


def test_a_copy_that_leaks_is_coded_again(tmp_path: Path) -> None:
    source, clip = real_clip("bikes.mp4"), a_shot(30, 76)
    order, wrong = order_of(clip, tmp_path), order_of(a_shot(29, 75), tmp_path)
    (leaking,) = cut_clips(source, [dataclasses.replace(wrong, out=order.out)])
    assert isinstance(leaking, CutResult)
    limits = SandboxConfig().limits(source.stat().st_size)
    cut = checked(source, clip, order, leaking, ALL_CHECKED, limits)
    assert cut.result and cut.result.method == "encoded" and cut.cut_again
    assert cut.leak == Leak(0, 0)
    assert cut_counts([cut.row()])["cut_again"] == 1
    encoded = dataclasses.replace(leaking, method="encoded")
    cut_clips(source, [dataclasses.replace(wrong, out=order.out)])
    failed = checked(source, clip, order, encoded, ALL_CHECKED, limits)
    assert failed.result is None and str(failed.failure).startswith("cut_failed: 1 frames leak")


def test_one_clip_that_is_not_there_does_not_take_the_others(tmp_path: Path) -> None:
    cuts = cut_bikes(tmp_path, [a_shot(0, 30), a_shot(242, 260), a_shot(30, 76)], ALL_CHECKED)
    reasons = {c.clip.start_frame: c.row()["failed"] for c in cuts}
    assert reasons == {0: None, 30: None, 242: "cut_failed: frames 242-260 not found"}
    assert not order_of(a_shot(242, 260), tmp_path).out.exists()


@pytest.mark.parametrize(("bytes_kept", "reason"), [(0, "empty"), (3000, "broken"), (None, "unre")])
def test_a_source_that_cannot_be_read_gives_reasons(
    bytes_kept: int | None, reason: str, tmp_path: Path
) -> None:
    source = tmp_path / "film.mp4"
    if bytes_kept is not None:
        source.write_bytes(real_clip("bikes.mp4").read_bytes()[:bytes_kept])
    cuts = list(cut_all(source, tmp_path, [a_shot(0, 30), a_shot(30, 76)], CutsConfig()))
    assert [str(c.failure).startswith(reason) for c in cuts] == [True, True]


def test_a_call_that_has_to_be_killed_is_repeated_clip_by_clip(tmp_path: Path) -> None:
    slow = CutsConfig(
        method="encode", preset="placebo", sandbox=SandboxConfig(wall_s=0.1, wall_s_per_mib=0)
    )
    cuts = cut_bikes(tmp_path, [a_shot(0, 137), a_shot(137, 250)], slow)
    assert [c.failure and c.failure.reason for c in cuts] == ["timed_out", "timed_out"]


def test_a_still_has_no_method_and_no_neighbours(tmp_path: Path) -> None:
    write_image(tmp_path / "still.png", scenery(1))
    size = {"width_px": 160, "height_px": 90, "crop_w_px": 160, "crop_h_px": 90}
    still = a_clip(1, kind="image", end_frame=1, **size)
    (cut,) = cut_all(tmp_path / "still.png", tmp_path, [still], ALL_CHECKED)
    assert cut.path.suffix == ".jpg" and read_image(cut.path).shape == (90, 160, 3)
    assert cut_counts([cut.row()])["cuts"] == {"copied": 0, "copied_with_edges": 0, "encoded": 0}
    assert cut_counts([cut.row()])["leak_checked"] == 0
