from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.lineage.spool import FIRST_RETRY_S, LAST_RETRY_S, Record, Spool, one_line


class Server:
    """A place that takes records, or not."""

    def __init__(self) -> None:
        self.up = True
        self.taken: list[int] = []
        self.asked = 0
        self.now_s = 0.0

    def spool(self) -> Spool:
        return Spool(lambda error: isinstance(error, ValueError), clock=lambda: self.now_s)

    def record(self, number: int, *, ordered: bool = True, bad: bool = False) -> Record:
        def deliver() -> None:
            self.asked += 1
            if bad:
                raise ValueError("malformed")
            if not self.up:
                raise ConnectionError("no route\nto host")
            self.taken.append(number)

        return Record(f"record {number}", deliver, ordered)


@given(st.lists(st.booleans(), max_size=30))
def test_everything_arrives_once_and_in_order(weather: list[bool]) -> None:
    server = Server()
    spool = server.spool()
    for number, up in enumerate(weather):
        server.up = up
        server.now_s += 1.0
        spool.submit(server.record(number))
    server.up = True
    spool.close()
    assert server.taken == list(range(len(weather)))
    assert spool.waiting == 0


def test_a_dead_server_is_asked_ever_more_rarely() -> None:
    server = Server()
    server.up = False
    spool = server.spool()
    for number in range(1000):
        server.now_s += 1.0
        spool.submit(server.record(number))
    assert server.asked <= 6 + (1000 - LAST_RETRY_S) / LAST_RETRY_S + 1
    assert server.now_s > FIRST_RETRY_S


def test_one_warning_while_it_lasts_and_one_of_what_was_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    server.up = False
    spool = server.spool()
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            server.now_s += 1000.0
            spool.submit(server.record(number))
        spool.close()
    first, last = [record.getMessage() for record in caplog.records]
    assert "no route to host" in first and "the job goes on" in first
    assert "lost 5 records" in last


def test_what_is_refused_for_ever_does_not_hold_up_the_rest(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    spool = server.spool()
    spool.submit(server.record(1, bad=True))
    spool.submit(server.record(2))
    assert server.taken == [2] and spool.waiting == 0
    assert "refused record 1" in caplog.text


def test_a_broken_file_store_does_not_hold_back_metrics() -> None:
    server = Server()
    spool = server.spool()
    broken = Record("file", lambda: (_ for _ in ()).throw(OSError("no bucket")), ordered=False)
    spool.submit(broken)
    server.now_s += 1000.0
    spool.submit(server.record(1))
    assert server.taken == [1] and spool.waiting == 1


def test_errors_become_one_short_line() -> None:
    assert one_line(RuntimeError("a\n  b")) == "a b"
    assert one_line(RuntimeError()) == "RuntimeError"
    assert len(one_line(RuntimeError("x" * 1000))) == 300
