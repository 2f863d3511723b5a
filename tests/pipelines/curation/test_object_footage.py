"""Footage in an object store: every object has its row, and the rows are those of a folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pipelines.config import RequestError
from pipelines.curation.captioners import sidecar_caption
from pipelines.curation.config import CurateConfig
from pipelines.curation.footage_at_hand import at_hand
from pipelines.curation.footage_copies import FootageCopies
from pipelines.curation.found import Found
from pipelines.curation.ingest import collapse, identify, ingest, list_footage
from pipelines.media import MediaError
from pipelines.records import Source, to_row
from tests.conftest import REPOSITORY
from tests.servers.faulty_store import Faults, FaultyStore
from tests.servers.object_store import BUCKET, ObjectStore, set_in_this_process
from tests.servers.objects_here import objects

__all__ = ["objects"]

ODD_KEYS = (
    *("sp ace.mp4", "per%20cent%.mp4", "ünï🎬.mp4", "../up.mp4", "a//b.mp4", "a::b.mp4"),
    *("http://host/film.mp4", "s3://bucket/film.mp4", "st*r[1]?.mp4", "h#sh.mp4", "plus+.mp4"),
    *("back\\slash.mp4", "./dot.mp4", "slash at the end.mp4/", "no suffix", "-rf.mp4"),
)


@pytest.fixture
def copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FootageCopies:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return FootageCopies("s3://unused", str(tmp_path / "set"), 1 << 20)


def put(objects: ObjectStore, uri: str, **data: bytes | str) -> None:
    for name, body in data.items():
        key = f"{uri}/{name}".removeprefix(f"s3://{BUCKET}/")
        objects.client().put_object(Bucket=BUCKET, Key=key, Body=body)


def rows(uri: str, copies: FootageCopies) -> list[dict[str, object]]:
    found = [(f, identify(f, copies=copies)) for f in list_footage(uri)]
    in_order = sorted(collapse(found), key=lambda footage: footage.source.uris[0])
    return [to_row(footage.source) for footage in in_order]


def held(copies: FootageCopies) -> list[str]:
    return sorted(p.name for p in copies.folder.iterdir() if "-" in p.name)


def test_the_rows_are_those_of_the_same_files_in_a_folder(
    objects: ObjectStore, copies: FootageCopies, tmp_path: Path
) -> None:
    here, there = tmp_path / "films", objects.new_prefix()
    files = {
        "a.mp4": b"film", "deep/er/copy.mp4": b"film", "b.mp4": b"other", "zero.mp4": b"",
        "a.json": json.dumps({"license": "CC-BY-4.0", "consent": True}).encode(),
        "b.mp4.json": json.dumps({"consent": "no"}).encode(), "b.json": b"[" * 100_000,
        "words.txt": b"words", "UPPER.JSON": b"{}", "none": b"x",
    }  # fmt: skip
    for name, data in files.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(data)
    objects.put_folder(here, there)
    assert rows(there, copies) == [to_row(footage.source) for footage in ingest(str(here))]


def test_whatever_an_object_is_called_it_has_its_row_and_its_bytes(
    objects: ObjectStore, copies: FootageCopies
) -> None:
    uri = objects.new_prefix()
    put(objects, uri, **{key: key for key in ODD_KEYS}, **{"folder/": b"", "q?versionId=1": b"x"})
    listed = list_footage(uri)
    assert len({f.uri for f in listed}) == len(listed) == len(ODD_KEYS) + 1
    for found in listed:
        source = identify(found, copies=copies)
        if "versionId" in found.uri or found.uri.endswith("/"):  # s3fs has no name for these
            assert source.reason == "unreadable"
            continue
        with at_hand(_config(copies), source, found.path) as path:
            assert f"{uri}/{Path(path).read_text()}" == found.path
            assert Path(path).parent == copies.folder


def _config(copies: FootageCopies) -> CurateConfig:
    return CurateConfig(footage=copies.footage, dataset=copies.dataset)


def test_a_film_is_fetched_once_for_all_that_is_done_with_it(
    objects: ObjectStore, copies: FootageCopies
) -> None:
    uri = objects.new_prefix()
    put(objects, uri, **{"a.mp4": b"a" * 1000, "b.mp4": b"b" * 1000})
    with (
        FaultyStore(objects.endpoint, Faults(), seed=0) as counted,
        set_in_this_process({"AWS_ENDPOINT_URL": counted.endpoint}),
    ):
        listed = list_footage(uri)
        assert [method for method, _ in counted.requests] == ["GET"]  # one listing
        sources = [identify(found, copies=copies) for found in listed]
        threads = [
            threading.Thread(target=_read, args=(copies, source, found.path))
            for source, found in zip(sources, listed, strict=True)
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(held(copies)) == 2
    bodies = [path for method, path in counted.requests if method == "GET" and ".mp4" in path]
    assert len(bodies) == 2


def _read(copies: FootageCopies, source: Source, path: str) -> None:
    with at_hand(_config(copies), source, path) as local:
        assert len(Path(local).read_bytes()) == source.size_bytes


def test_the_disk_that_copies_take_is_bounded(
    objects: ObjectStore, copies: FootageCopies, tmp_path: Path
) -> None:
    uri = objects.new_prefix()
    put(objects, uri, **{f"{n}.mp4": bytes([n]) * 1000 for n in range(6)})
    small = FootageCopies(uri, copies.dataset, 2500)
    listed = list_footage(uri)
    for found in listed:
        identify(found, copies=small)
        assert sum(p.stat().st_size for p in small.folder.iterdir() if "-" in p.name) <= 2500
    assert {name.split("-")[1] for name in held(small)} == {"1000.mp4"}
    with small.copy_of(listed[0].path, 1000), small.copy_of(listed[1].path, 1000):
        with small.copy_of(listed[2].path, 1000) as (third, _):  # in use together: more than that
            assert third.read_bytes() == bytes([2]) * 1000
        assert len(held(small)) == 3
    small.clear()
    assert held(small) == []


def test_what_a_killed_run_left_is_used_by_its_next_and_removed_by_another(
    objects: ObjectStore, copies: FootageCopies, tmp_path: Path
) -> None:
    uri = objects.new_prefix()
    put(objects, uri, **{"a.mp4": b"a" * 1000})
    program = (
        "import sys, tempfile, time\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "from pipelines.curation.footage_copies import FootageCopies\n"
        "with FootageCopies(sys.argv[2], sys.argv[3], 1 << 20).copy_of(sys.argv[4], 1000):\n"
        "    print('held', flush=True); time.sleep(60)\n"
    )
    arguments = [str(tmp_path / "tmp"), uri, copies.dataset, f"{uri}/a.mp4"]
    run = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
    )  # fmt: skip
    assert run.stdout is not None and run.stdout.readline() == "held\n"
    another = FootageCopies(uri, str(tmp_path / "another"), 1 << 20)
    # A process holds a folder for as long as it lives: each of these is a run of its own.
    subprocess.run(_use(another, uri, tmp_path), check=True, cwd=REPOSITORY)
    assert len(held(copies)) == 1  # in use
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    (copies.folder / f"{'0' * 32}-5.mp4.part").touch()
    subprocess.run(_use(copies, uri, tmp_path), check=True, cwd=REPOSITORY)
    assert len([name for name in held(copies) if name.endswith(".mp4")]) == 1
    subprocess.run(_use(another, uri, tmp_path), check=True, cwd=REPOSITORY)
    assert not copies.folder.exists() and another.folder.exists()


def _use(copies: FootageCopies, uri: str, tmp_path: Path) -> list[str]:
    program = (
        "import sys, tempfile\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "from pipelines.curation.footage_copies import FootageCopies\n"
        "with FootageCopies(sys.argv[2], sys.argv[3], 1 << 20).copy_of(sys.argv[4], 1000): pass\n"
    )
    place = str(tmp_path / "tmp")
    return [sys.executable, "-c", program, place, uri, copies.dataset, f"{uri}/a.mp4"]


def test_an_object_that_changes_or_goes_is_noticed(
    objects: ObjectStore, copies: FootageCopies
) -> None:
    uri = objects.new_prefix()
    put(objects, uri, **{"a.mp4": b"before", "gone.mp4": b"gone"})
    first, gone = list_footage(uri)
    source = identify(first, copies=copies)
    copies.clear()
    put(objects, uri, **{"a.mp4": b"beFORE"})
    objects.client().delete_object(Bucket=BUCKET, Key=gone.path.removeprefix(f"s3://{BUCKET}/"))
    assert identify(first, copies=copies).reason == "changed_while_read"
    assert identify(gone, copies=copies).reason == "unreadable"
    at_first = at_hand(_config(copies), source, first.path)
    with pytest.raises(MediaError, match="changed_while_read"), at_first:
        pass
    again = list_footage(uri)[0]
    assert again.fingerprint != first.fingerprint
    assert identify(again, copies=copies).source_id != source.source_id


def test_bytes_that_come_wrong_are_fetched_again(
    objects: ObjectStore, copies: FootageCopies
) -> None:
    uri = objects.new_prefix()
    put(objects, uri, **{f"{n}.mp4": bytes([n]) * 5000 for n in range(12)})
    whole = {f.uri: identify(f, copies=copies).source_id for f in list_footage(uri)}
    copies.clear()
    faults = Faults(flip=0.15, short=0.15, cut=0.1)
    with (
        FaultyStore(objects.endpoint, faults, seed=3) as faulty,
        set_in_this_process({"AWS_ENDPOINT_URL": faulty.endpoint}),
    ):
        listed = [Found(name, f"{uri}/{name}", 5000) for name in whole]
        found = {f.uri: identify(f, copies=copies) for f in listed}
    assert {name: source.source_id for name, source in found.items()} == whole
    assert set(faulty.injected) == {"flip", "short", "cut"}


def test_a_caption_lies_beside_an_object_too(objects: ObjectStore) -> None:
    uri = objects.new_prefix()
    put(objects, uri, **{"a.b.mp4": b"x", "a.b.txt": "\n a red circle\nmore", "c.mp4": b"y"})
    assert sidecar_caption([f"{uri}/c.mp4", f"{uri}/a.b.mp4"]) == "a red circle"
    assert sidecar_caption([f"{uri}/c.mp4"]) == ""


def test_no_footage_is_a_wrong_request(objects: ObjectStore) -> None:
    for uri, says in (
        (objects.new_prefix(), "nothing is there"),
        ("s3://no-such-bucket/films", "no such bucket"),
        ("nowhere://bucket/films", "cannot be reached"),
    ):
        with pytest.raises(RequestError, match=says):
            list_footage(uri)
