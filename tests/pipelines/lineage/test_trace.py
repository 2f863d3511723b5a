from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines.config import RequestError
from pipelines.lineage import catalog, trace, trace_text
from pipelines.lineage import past as backward
from pipelines.lineage.manifest import read_dataset
from pipelines.media import write_video
from tests.pipelines.lineage import small_world as world
from tests.pipelines.lineage.conftest import Past


def everything(past: Past) -> catalog.Catalog:
    return catalog.build([str(past.root)])


def test_a_source_is_found_by_file_by_id_and_by_name(past: Past) -> None:
    known = everything(past)
    wanted = [world.source_id("beta film.mp4")]
    moved = past.root / "renamed.bin"
    shutil.copyfile(past.root / "footage" / "beta film.mp4", moved)
    for name in (str(moved), wanted[0], "beta film.mp4", "/footage/beta film.mp4"):
        assert trace.source_ids_of(known, name) == wanted


def test_a_source_forward_to_every_checkpoint(past: Past) -> None:
    found = trace.trace_source(everything(past), world.source_id("alpha.mp4"))
    (dataset,) = found["datasets"]
    assert [clip["verdict"] for clip in dataset["clips"]].count("kept") == 3
    assert [clip["reason"] for clip in dataset["clips"]].count("too_still") == 1
    (latents,) = found["latents"]
    assert {clip["clip_id"] for clip in latents["clips"]} == {
        clip.clip_id for clip in past.clips_of("alpha.mp4")
    }
    one, two, refine = found["checkpoints"]
    first = past.clips_of("alpha.mp4")[0].clip_id
    assert {clip["clip_id"]: clip["times"] for clip in one["clips"]}[first] == 2
    # Step 20 saw what step 10 saw, and five times more.
    assert {clip["clip_id"]: clip["times"] for clip in two["clips"]}[first] == 7
    assert {clip["first_step"] for clip in two["clips"]} == {3}
    assert refine["clips"] == [] and refine["through_base"] == [past.base[1]["uri"]]
    assert [video["uri"] for video in found["videos"]] == [str(past.root / "video-x.mp4")]


def test_the_last_clean_checkpoint_is_named(past: Past) -> None:
    found = trace.trace_source(everything(past), world.source_id("beta film.mp4"))
    clean = trace.last_clean_steps(found["checkpoints"], found["clean_checkpoints"])
    assert clean == {str(past.root / "base-x"): 10, str(past.root / "refine-x"): None}


def test_a_source_that_only_the_refinement_saw_leaves_the_base_clean(past: Past) -> None:
    found = trace.trace_source(everything(past), world.source_id("gamma.mp4"))
    assert [row["uri"] for row in found["checkpoints"]] == [past.refine["uri"]]
    assert len(found["clean_checkpoints"]) == 2


def test_a_clip_with_its_row_and_its_uses(past: Past) -> None:
    clip = past.clips_of("beta film.mp4")[1]
    found = trace.trace_clip(everything(past), clip.clip_id)
    (dataset,) = found["datasets"]
    assert dataset["row"]["caption"] == clip.caption
    assert dataset["uris"] == ["/footage/beta film.mp4"]
    assert [row["step"] for row in found["checkpoints"]] == [20, 10]


def test_a_checkpoint_backward_to_files_and_licences(past: Past) -> None:
    known = everything(past)
    entry = backward.checkpoint_entry(known, str(past.root / "refine-x"))
    found = backward.trace_checkpoint(known, entry)
    refine, base = found["stages"]
    assert refine["sources"][0]["uris"] == ["/footage/gamma.mp4"]
    assert base["samples_seen"] == 3 * 2 + 5 + 3
    assert base["history"] == [10, 20] and base["history_complete"]
    alpha, beta = base["sources"]
    assert (alpha["times"], alpha["clips"], alpha["first_step"]) == (11, 3, 3)
    assert beta["spans_s"] == [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]
    assert base["licenses"] == {"CC0-1.0": 2}


def test_a_past_whose_dataset_is_gone_still_names_the_sources(past: Past) -> None:
    shutil.rmtree(past.dataset["uri"])
    known = everything(past)
    found = backward.trace_checkpoint(known, backward.checkpoint_entry(known, past.base[1]["uri"]))
    (base,) = found["stages"]
    assert base["dataset_found"] is None
    assert {row["source_id"] for row in base["sources"]} == {
        world.source_id("alpha.mp4"),
        world.source_id("beta film.mp4"),
    }


def test_a_past_with_a_missing_step_or_base_says_so(past: Past) -> None:
    shutil.rmtree(past.base[0]["uri"])
    known = everything(past)
    (base,) = backward.trace_checkpoint(
        known, backward.checkpoint_entry(known, past.base[1]["uri"])
    )["stages"]
    assert not base["history_complete"]
    shutil.rmtree(past.root / "base-x")
    known = everything(past)
    found = backward.trace_checkpoint(known, backward.checkpoint_entry(known, past.refine["uri"]))
    assert found["base_not_found"] == past.base[1]


def test_a_copied_dataset_is_found_by_its_digest(past: Past) -> None:
    shutil.move(past.dataset["uri"], past.root / "moved")
    known = everything(past)
    found = backward.trace_checkpoint(known, backward.checkpoint_entry(known, past.base[0]["uri"]))
    assert found["stages"][0]["dataset_found"] == str(past.root / "moved")


def test_a_video_names_its_checkpoints_prompt_and_seed(past: Past) -> None:
    known = everything(past)
    video = backward.video_entry(known, str(past.root / "video-x.mp4"))
    found = backward.trace_video(known, video)
    assert found["made_with"]["prompt"] == "a red circle" and found["made_with"]["seed"] == 7
    assert found["checkpoints"]["base"]["uri"] == past.base[1]["uri"]
    assert "settings" not in found["made_with"]
    assert [stage["stage"] for stage in found["stages"]] == ["base", "refine"]
    text = trace_text.video_text(found)
    assert text.count("samples seen") == 2 and "seed: 7" in text


def test_a_video_alone_says_it_in_its_own_metadata(past: Past, tmp_path: Path) -> None:
    """The file was sent around without the JSON beside it."""
    record = (past.root / "video-x.json").read_text()
    alone = tmp_path / "sent.mp4"
    frames = [np.full((32, 32, 3), shade, np.uint8) for shade in (0, 99, 200)]
    write_video(alone, frames, fps=8, metadata={"comment": record})
    known = everything(past)
    found = backward.trace_video(known, backward.video_entry(known, str(alone)))
    assert found["made_with"]["seed"] == 7
    assert found["checkpoints"]["refine"]["uri"] == past.refine["uri"]
    write_video(alone, frames, fps=8, metadata={"comment": "holiday"})
    with pytest.raises(RequestError, match="nothing says"):
        backward.video_entry(known, str(alone))


def test_a_dataset_and_what_was_made_from_it(past: Past) -> None:
    found = backward.trace_dataset(everything(past), read_dataset(past.dataset["uri"]))
    assert (found["kept"], found["dropped"], found["reasons"]) == (9, 3, {"too_still": 3})
    assert len(found["latents"]) == 1 and len(found["checkpoints"]) == 3


def test_what_nobody_knows_is_one_line(past: Past) -> None:
    known = everything(past)
    with pytest.raises(RequestError, match="not in any of the 1 datasets"):
        trace.source_ids_of(known, "f" * 32)
    with pytest.raises(RequestError, match="not in any"):
        trace.trace_clip(known, "f" * 32)
    with pytest.raises(RequestError, match="no dataset is known"):
        trace.trace_clip(catalog.Catalog(()), "f" * 32)
    with pytest.raises(RequestError, match="no checkpoint"):
        backward.checkpoint_entry(known, str(past.root / "footage"))


def test_neighbours_are_found_without_being_told(past: Past) -> None:
    known = catalog.build((), near=[past.dataset["uri"]])
    assert len(known.of("checkpoint")) == 3 and len(known.of("video")) == 1


def test_damaged_naming_files_are_left_out(past: Past) -> None:
    (past.root / "base-x" / "step-00000010" / "checkpoint.json").write_text("{")
    assert len(everything(past).of("checkpoint")) == 2


def test_answers_are_json_and_text_without_control_characters(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "110")  # tables are as wide as the terminal
    known = everything(past)
    source = trace.trace_source(known, world.source_id("alpha.mp4"))
    clip = trace.trace_clip(known, past.clips_of("alpha.mp4")[0].clip_id)
    checkpoint = backward.trace_checkpoint(
        known, backward.checkpoint_entry(known, past.refine["uri"])
    )
    texts = {
        trace_text.source_text(source): ("alpha.mp4", "too_still", "through its base"),
        trace_text.clip_text(clip): ("clip_score", "first step"),
        trace_text.checkpoint_text(checkpoint): ("14 of 6 clips", "CC0-1.0"),
    }
    for text, words in texts.items():
        assert all(word in text for word in words), text
    json.dumps([source, clip, checkpoint])
    (row,) = trace_text.table(["name"], [["\x1b[31mred\n"]])[1:]
    assert "\x1b" not in row and "\n" not in row


def test_what_lies_elsewhere_is_found_by_what_refers_to_it(past: Past, tmp_path: Path) -> None:
    """A refinement trained in another place than its base and its dataset."""
    alone = tmp_path / "elsewhere" / "refine"
    base = past.base[1]
    clip = past.clips_of("gamma.mp4")[0]
    seen = {clip.clip_id: (clip.source_id, 1, 1)}
    world.write_checkpoint(alone, 5, seen, dataset=past.dataset, base=base, stage="refine")
    known = catalog.build([str(alone)])
    found = backward.trace_checkpoint(known, backward.checkpoint_entry(known, str(alone)))
    assert found["base_not_found"] is None and len(found["stages"]) == 2
    assert found["stages"][1]["history_complete"]
    assert found["stages"][0]["sources"][0]["uris"] == ["/footage/gamma.mp4"]


def test_a_place_that_cannot_be_asked_is_passed_over(
    past: Past, caplog: pytest.LogCaptureFixture
) -> None:
    known = catalog.build((), ["nowhere://bucket/x", "/gone"], near=[past.dataset["uri"]])
    assert len(known.of("dataset")) == 1 and "nowhere://bucket/x" in caplog.text


def test_a_lost_ledger_leaves_its_training_unknown_and_the_others_told(past: Past) -> None:
    """Neither clean nor guilty: and what was saved after it is not known to be clean either."""
    Path(past.base[0]["uri"], "lineage.parquet").unlink()
    known = everything(past)
    gamma = trace.trace_source(known, world.source_id("gamma.mp4"))
    assert [row["uri"] for row in gamma["checkpoints"]] == [past.refine["uri"]]
    assert [row["uri"] for row in gamma["unknown_checkpoints"]] == [c["uri"] for c in past.base]
    assert gamma["clean_checkpoints"] == []
    assert "lineage.parquet: not found" in gamma["unknown_checkpoints"][0]["why"]
    assert "nobody can tell" in trace_text.source_text(gamma)


def test_a_damaged_dataset_does_not_keep_another_from_answering(
    past: Past, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(past.dataset["uri"], past.root / "damaged")
    (past.root / "damaged" / "sources.parquet").write_bytes(b"PAR1 not really PAR1")
    known = everything(past)
    (source_id,) = trace.source_ids_of(known, "alpha.mp4")
    assert len(trace.trace_source(known, source_id)["datasets"]) == 1
    assert "damaged/sources.parquet" in caplog.text


def test_ids_may_be_given_as_tables_show_them(past: Past) -> None:
    known, clip = everything(past), past.clips_of("alpha.mp4")[0]
    assert trace.trace_clip(known, clip.clip_id[:12].upper())["clip_id"] == clip.clip_id
    assert trace.source_ids_of(known, clip.source_id[:10]) == [clip.source_id]
    with pytest.raises(RequestError, match="not an id"):
        trace.trace_clip(known, "alpha.mp4")


@pytest.mark.parametrize("width", [60, 80, 110])
def test_a_table_is_as_wide_as_the_terminal_but_ids_and_places_stay_whole(width: int) -> None:
    rows = [("a" * 12, "a caption that goes on and on " * 3, "5", "/a/long/place/" + "x" * 60)]
    lines = trace_text.table(("clip", "caption", "times", "where"), rows, width=width)
    assert "a" * 12 in lines[1] and lines[1].endswith("/a/long/place/" + "x" * 60)
    shown = trace_text.table(("clip", "caption", "times"), [rows[0][:3]], width=width)
    assert max(map(len, shown)) <= width and shown[1].endswith("5")
