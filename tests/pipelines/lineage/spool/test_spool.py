from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.lineage.spool import files as spool_files
from pipelines.lineage.spool.attachments import KEPT_FILE_BYTES, Attachments
from pipelines.lineage.spool.files import Record, SpoolFolder, folders_below, store_folder
from pipelines.lineage.spool.replay import send_folder, waiting_stores
from pipelines.lineage.spool.spool import (
    DOUBTFUL_ATTEMPTS,
    Sender,
    Spool,
    Verdict,
    name_of,
    one_line,
)

URI, PROJECT = "http://server", "project"


class Killed(BaseException):
    """The process is gone at this very place."""


class Server:
    """A place that takes records, or not; as MLflow, it can be told the same thing twice."""

    def __init__(self) -> None:
        self.up, self.sick_of = True, -1
        self.taken: list[int] = []
        self.files: list[str] = []
        self.asked = 0
        self.kill_before = self.kill_after = False

    def groups(self, records: Sequence[Record]) -> Iterator[int]:
        yield from (len(records[i : i + 2]) for i in range(0, len(records), 2))

    def deliver(self, records: Sequence[Record]) -> None:
        self.asked += 1
        if self.kill_before:
            raise Killed
        if not self.up:
            raise ConnectionError("no route\nto host")
        if any(record.get("bad") for record in records):
            raise ValueError("malformed")
        if any(record["n"] == self.sick_of for record in records):
            raise RuntimeError("internal error")
        self.taken += [record["n"] for record in records if record["n"] not in self.taken]
        if self.kill_after:
            raise Killed

    def attach(self, record: Record) -> None:
        if Path(record["file"]).name == "broken.txt":
            raise ConnectionError("no bucket")
        self.files.append(Path(record["file"]).read_text())

    def verdict(self, error: Exception) -> Verdict:
        kinds = {ValueError: Verdict.HOPELESS, RuntimeError: Verdict.DOUBTFUL}
        return kinds.get(type(error), Verdict.LATER)

    def is_alive(self) -> bool:
        return self.up


def spool_in(root: Path) -> Spool:
    return Spool(lambda: SpoolFolder.create(root, URI, PROJECT))


def sender(spool: Spool | SpoolFolder, server: Server) -> Sender:
    return Sender(spool, server, lambda: None)


def refused(root: Path) -> list[int]:
    found = spool_files.refused_in(store_folder(root, URI, PROJECT))
    return [entry["record"]["n"] for entry in found]


ACTIONS = st.lists(
    st.sampled_from(
        [
            "record",
            "record",
            "record",
            "bad",
            "send",
            "up",
            "down",
            "kill",
            "kill before",
            "kill after",
        ]
    ),
    max_size=60,
)


@given(ACTIONS)
def test_whatever_dies_each_record_arrives_once_and_in_order(actions: list[str]) -> None:
    """Processes that are killed anywhere, each followed by one that first sends what is left."""
    server = Server()
    written: list[int] = []
    bad: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        spool = spool_in(root)

        def next_process() -> None:
            nonlocal spool
            if spool._folder is not None:
                spool._folder.release()  # the system does, when a process dies
            server.kill_before = server.kill_after = False
            spool = spool_in(root)

        def send_everything() -> None:
            for path in folders_below(store_folder(root, URI, PROJECT)):
                old = SpoolFolder.take(path)
                if old is not None:
                    try:
                        if send_folder(old, server).error:
                            return
                    except Killed:
                        old.release()
                        raise
            sender(spool, server).send_records()

        for action in actions:
            if action in ("record", "bad"):
                number = len(written) + len(bad)
                (bad if action == "bad" else written).append(number)
                spool.append({"n": number, "bad": action == "bad"})
            elif action in ("up", "down"):
                server.up = action == "up"
            elif action == "kill":
                next_process()
            else:
                server.kill_before = action == "kill before"
                server.kill_after = action == "kill after"
                try:
                    send_everything()
                except Killed:
                    next_process()
                server.kill_before = server.kill_after = False
        server.up = True
        next_process()
        send_everything()
        assert server.taken == written
        assert refused(root) == bad
        assert [store.folders for store in waiting_stores(root)] in ([], [()])


def test_what_a_dead_server_leaves_goes_when_it_is_back(tmp_path: Path) -> None:
    server, spool = Server(), spool_in(tmp_path)
    server.up = False
    for number in range(7):
        spool.append({"n": number})
    sent = sender(spool, server).send_records()
    assert isinstance(sent.error, ConnectionError) and sent.records == 0 and server.asked == 1
    server.up = True
    assert sender(spool, server).send_records().records == 7
    assert server.taken == list(range(7))


def test_the_torn_end_of_a_killed_process_was_never_recorded(tmp_path: Path) -> None:
    server, spool = Server(), spool_in(tmp_path)
    spool.append({"n": 1})
    assert spool.place is not None
    with open(spool.place / "00000001.jsonl", "ab") as file:
        file.write(b'{"n": 2, "va')
    assert sender(spool, server).send_records().records == 1
    assert server.taken == [1]


def test_a_damaged_line_is_set_aside_and_holds_up_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server, spool = Server(), spool_in(tmp_path)
    spool.append({"n": 1})
    assert spool.place is not None
    with open(spool.place / "00000001.jsonl", "ab") as file:
        file.write(b'\xff\xfe{"n"\n')
    spool.append({"n": 3})
    sent = sender(spool, server).send_records()
    assert sent.error is None and 1 in server.taken and 3 in server.taken
    (entry,) = spool_files.refused_in(store_folder(tmp_path, URI, PROJECT))
    assert entry["record"]["op"] == spool_files.DAMAGED and "damaged" in caplog.text


def test_a_record_on_which_a_healthy_server_fails_again_and_again_is_set_aside(
    tmp_path: Path,
) -> None:
    server, spool = Server(), spool_in(tmp_path)
    server.sick_of = 2
    for number in range(4):
        spool.append({"n": number})
    one = sender(spool, server)
    for _ in range(DOUBTFUL_ATTEMPTS - 1):
        assert one.send_records().verdict is Verdict.DOUBTFUL
    last = one.send_records()
    # What went with it goes alone first; it needs its own attempts.
    while last.error:
        last = one.send_records()
    assert server.taken == [0, 1, 3] and refused(tmp_path) == [2]


def test_a_long_job_does_not_keep_what_was_delivered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_files, "SEGMENT_BYTES", 100)
    server, spool = Server(), spool_in(tmp_path)
    for number in range(50):
        spool.append({"n": number})
        if number % 10 == 9:
            sender(spool, server).send_records()
    assert server.taken == list(range(50)) and spool.place
    assert len(spool_files.segments_of(spool.place)) == 1


def test_without_a_disk_records_wait_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    server, spool = Server(), spool_in(tmp_path / "home")
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            spool.append({"n": number})
    assert len(caplog.records) == 1 and "the job goes on" in caplog.text
    server.up = False
    assert sender(spool, server).send_records().error
    server.up = True
    assert sender(spool, server).send_records().records == 5
    (tmp_path / "home").unlink()
    spool.append({"n": 5})
    assert spool.place is not None
    sender(spool, server).send_records()
    assert server.taken == list(range(6))


def test_nothing_passes_what_a_full_disk_did_not_take(tmp_path: Path) -> None:
    server, spool = Server(), spool_in(tmp_path)
    spool.append({"n": 0})
    assert spool.place
    spool.place.chmod(0o500)
    folder = spool._folder
    assert folder is not None
    os.close(folder._file)  # type: ignore[arg-type]
    folder._file = os.open(spool.place / "00000001.jsonl", os.O_RDONLY)  # writes fail from now on
    spool.append({"n": 1})
    folder._file = None
    spool.place.chmod(0o700)
    spool.append({"n": 2})
    assert sender(spool, server).send_records().error is None
    assert server.taken == [0, 1, 2]


# --- files -------------------------------------------------------------------------------------


def test_files_survive_the_job_that_made_them(tmp_path: Path) -> None:
    server, spool = Server(), spool_in(tmp_path / "spool")
    kept = spool.attachments()
    assert kept is not None
    page = tmp_path / "page.html"
    page.write_text("<p>")
    kept.keep("run", page, "pages")
    page.unlink()
    sent = sender(spool, server).send_files(kept)
    assert (sent.files, server.files, kept.waiting()) == (1, ["<p>"], [])


def test_a_large_file_is_sent_from_where_it_is(tmp_path: Path) -> None:
    large = tmp_path / "large.bin"
    with open(large, "wb") as file:
        file.truncate(KEPT_FILE_BYTES + 1)
    kept = Attachments(tmp_path / "spool")
    kept.keep("run", large, "")
    (waiting,) = kept.waiting()
    assert waiting.file == large


def test_a_broken_file_store_does_not_hold_back_other_files(tmp_path: Path) -> None:
    server, spool = Server(), spool_in(tmp_path)
    kept = spool.attachments()
    assert kept is not None
    kept.keep_bytes("run", b"1", "broken.txt")
    kept.keep_bytes("run", b"2", "whole.txt")
    sent = sender(spool, server).send_files(kept)
    assert sent.files == 1 and server.files == ["2"] and len(kept.waiting()) == 1


# --- one at a time -----------------------------------------------------------------------------


def test_a_living_process_s_folder_is_nobody_else_s(tmp_path: Path) -> None:
    folder = SpoolFolder.create(tmp_path, URI, PROJECT)
    (place,) = folders_below(store_folder(tmp_path, URI, PROJECT))
    assert SpoolFolder.take(place) is None
    child = os.fork()
    if child == 0:
        taken = SpoolFolder.take(place)
        os._exit(0 if taken is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    folder.release()
    again = SpoolFolder.take(place)
    assert again is not None and SpoolFolder.take(place) is None
    again.remove()
    assert folders_below(store_folder(tmp_path, URI, PROJECT)) == []


def test_a_child_that_outlives_the_process_does_not_hold_its_folder(tmp_path: Path) -> None:
    told, tell = os.pipe()
    writer = os.fork()
    if writer == 0:
        SpoolFolder.create(tmp_path, URI, PROJECT)
        if os.fork() == 0:  # lives until the test ends
            os.close(tell)
            os.read(told, 1)
            os._exit(0)
        os._exit(0)
    os.waitpid(writer, 0)
    (place,) = folders_below(store_folder(tmp_path, URI, PROJECT))
    taken = SpoolFolder.take(place)
    os.write(tell, b"x")
    assert taken is not None
    taken.release()


def test_names_and_errors_become_one_short_line() -> None:
    assert one_line(RuntimeError("a\n  b")) == "a b"
    assert one_line(RuntimeError()) == "RuntimeError"
    assert len(one_line(RuntimeError("x" * 1000))) == 300
    assert name_of({"op": "model", "name": "base\nstep"}) == "model base step"
    assert name_of({"op": "file", "file": "/spool/1/page.html"}) == "file page.html"
