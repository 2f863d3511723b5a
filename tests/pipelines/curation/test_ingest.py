import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.config import RequestError
from pipelines.curation.collapse import Footage
from pipelines.curation.found import readable_name
from pipelines.curation.ingest import ingest, list_footage


def by_uri(folder: Path) -> dict[str, Footage]:
    return {uri: footage for footage in ingest(str(folder)) for uri in footage.source.uris}


def test_every_entry_gets_a_row(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.mp4").write_bytes(b"film")
    (tmp_path / "sub" / "copy.mp4").write_bytes(b"film")
    (tmp_path / "words.txt").write_text("words")
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "inside.mp4").symlink_to("a.mp4")
    (tmp_path / "outside.mp4").symlink_to("/etc/hostname")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    (tmp_path / "nowhere.mp4").symlink_to("gone.mp4")
    rows = by_uri(tmp_path)
    problems = {uri: footage.source.reason for uri, footage in rows.items()}
    assert problems == {
        "a.mp4": None,
        "sub/copy.mp4": None,
        "inside.mp4": None,
        "words.txt": "sidecar",
        "empty.mp4": "empty",
        "pipe.mp4": "not_regular_file",
        "outside.mp4": "not_regular_file",
        "loop": "not_regular_file",
        "circle.mp4": "not_regular_file",
        "nowhere.mp4": "not_regular_file",
    }
    assert rows["a.mp4"].source.uris == ["a.mp4", "inside.mp4", "sub/copy.mp4"]
    assert Path(rows["sub/copy.mp4"].path).read_bytes() == b"film"
    ids = [footage.source.source_id for footage in ingest(str(tmp_path))]
    assert len(set(ids)) == len(ids) == 8


def test_the_order_is_the_names_and_moving_files_changes_no_identity(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.mp4", "c.mp4"):
        (tmp_path / name).write_text(name)
    before = ingest(str(tmp_path))
    assert [f.source.uris for f in before] == [["a.mp4"], ["b.mp4"], ["c.mp4"]]
    (tmp_path / "a.mp4").rename(tmp_path / "z.mp4")
    after = {f.source.source_id for f in ingest(str(tmp_path))}
    assert after == {f.source.source_id for f in before}


def test_names_that_are_no_text_stay_apart_and_can_be_opened(tmp_path: Path) -> None:
    names = [b"\xff.mp4", b"\xfe.mp4", b"\\xff.mp4", "é🎬.mp4".encode(), b"two\nlines.mp4"]
    for number, name in enumerate(names):
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(bytes([number + 1]))
    found = list_footage(str(tmp_path))
    assert {f.uri for f in found} == {
        "\\xff.mp4",
        "\\xfe.mp4",
        "\\\\xff.mp4",
        "é🎬.mp4",
        "two\\x0alines.mp4",
    }
    assert sorted(Path(f.path).read_bytes() for f in found) == [bytes([n + 1]) for n in range(5)]


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=12), st.binary(min_size=1, max_size=12))
def test_different_names_read_differently(a: bytes, b: bytes) -> None:
    assert (readable_name(a) == readable_name(b)) == (a == b)
    readable_name(a).encode("utf-8")


def test_licence_and_consent_come_from_the_file_beside(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a")
    (tmp_path / "b.mp4").write_bytes(b"b")
    (tmp_path / "a.json").write_text(json.dumps({"license": "CC-BY-4.0", "consent": True}))
    (tmp_path / "b.json").write_text("[" * 100_000)
    rows = by_uri(tmp_path)
    assert (rows["a.mp4"].source.license, rows["a.mp4"].source.consent) == ("CC-BY-4.0", "yes")
    assert rows["b.mp4"].source.license is None


def test_the_file_of_the_very_name_is_believed_first_and_a_no_in_either_stands(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"a")
    (tmp_path / "a.json").write_text(json.dumps({"license": "CC0-1.0", "consent": "no"}))
    (tmp_path / "a.mp4.json").write_text(json.dumps({"license": "CC-BY-4.0", "consent": "yes"}))
    source = by_uri(tmp_path)["a.mp4"].source
    assert (source.license, source.consent) == ("CC-BY-4.0", "no")


def test_copies_are_bound_by_the_strictest_of_what_is_stated(tmp_path: Path) -> None:
    for name, told in (
        ("a", {"license": "CC0-1.0", "consent": "yes"}),
        ("b", {"license": "CC-BY-NC-4.0"}),
        ("c", {"consent": "withdrawn in May"}),
    ):
        (tmp_path / f"{name}.mp4").write_bytes(b"the same")
        (tmp_path / f"{name}.json").write_text(json.dumps(told))
    (copies,) = [f for f in ingest(str(tmp_path)) if f.source.status == "ok"]
    assert copies.source.uris == ["a.mp4", "b.mp4", "c.mp4"]
    assert (copies.source.license, copies.source.consent) == ("CC-BY-NC-4.0", "withdrawn in May")


def test_a_file_that_changes_after_it_was_listed_is_noticed(tmp_path: Path) -> None:
    from pipelines.curation.ingest import identify

    (tmp_path / "a.mp4").write_bytes(b"before")
    (found,) = list_footage(str(tmp_path))
    (tmp_path / "a.mp4").write_bytes(b"after that")
    assert identify(found).reason == "changed_while_read"


def test_no_footage_is_a_wrong_request(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "bare").mkdir()
    for uri, says in (
        (tmp_path / "missing", "no such folder"),
        (tmp_path / "file", "not a folder"),
        (tmp_path / "bare", "is empty"),
    ):
        with pytest.raises(RequestError, match=says):
            list_footage(str(uri))
