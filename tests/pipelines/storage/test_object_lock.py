"""Who may write to an object store's prefix: the store decides, and its clock."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from pipelines.config import RequestError
from pipelines.storage import Store
from pipelines.storage import object_lock as locks
from pipelines.storage.object_lock import Held, LockLost, object_lock
from pipelines.storage.writer_lock import LOCK_FILE, writer_lock
from tests.servers.object_store import ObjectStore
from tests.servers.objects_here import objects

__all__ = ["objects"]

NAME = "_work/lock"


@pytest.fixture
def store(objects: ObjectStore) -> Store:
    return Store.open(objects.new_prefix())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, seconds in (("HEARTBEAT_S", 0.2), ("STALE_AFTER_S", 3.0), ("GIVE_UP_AFTER_S", 1.0)):
        monkeypatch.setattr(locks, name, seconds)
    yield


def test_the_second_is_refused_in_one_line_and_the_lock_goes_with_its_holder(store: Store) -> None:
    with writer_lock(store):
        with pytest.raises(RequestError, match=r"process \d+ on .* is writing there"):  # noqa: SIM117
            with writer_lock(store):
                pass
        assert store.exists(LOCK_FILE)
    assert store.list_files() == []


@pytest.mark.usefixtures("quick")
def test_a_lock_that_beats_is_alive_however_long_it_is_held(store: Store) -> None:
    with object_lock(store, NAME):
        time.sleep(2 * locks.STALE_AFTER_S)
        with pytest.raises(Held), object_lock(store, NAME):
            pass


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("claimed_s", [0.0, 4e9], ids=["long ago", "in the future"])
def test_what_a_dead_holder_left_is_taken_over_whatever_its_clock_said(
    store: Store, claimed_s: float
) -> None:
    store.write_json(NAME, {"host": "elsewhere", "pid": 7, "alive_s": claimed_s})
    with pytest.raises(Held), object_lock(store, NAME):
        pass
    time.sleep(locks.STALE_AFTER_S + 1.5)  # the store's clock counts whole seconds
    with object_lock(store, NAME):
        assert store.read_json(NAME)["pid"] != 7


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("is_left_behind", [False, True], ids=["free", "stale"])
def test_of_many_at_the_same_moment_one_is_told_yes(store: Store, is_left_behind: bool) -> None:
    if is_left_behind:
        store.write_json(NAME, {"host": "elsewhere", "pid": 7})
        time.sleep(locks.STALE_AFTER_S + 1.5)
    held, refused = [], []
    ready = threading.Barrier(8)

    def take(number: int) -> None:
        lock = locks._Lock(store, NAME)
        ready.wait()
        try:
            lock.take()
            held.append(number)
        except Held:
            refused.append(number)

    threads = [threading.Thread(target=take, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(held), len(refused)) == (1, 7)


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "nohup"])
def ctrl_c(request: pytest.FixtureRequest) -> Iterator[None]:
    """Heeded, and ignored as by what a script started in the background."""
    before = signal.signal(signal.SIGINT, request.param)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("quick", "ctrl_c")
def test_a_holder_whose_lock_was_taken_stops_and_leaves_the_lock_to_its_new_holder(
    store: Store,
) -> None:
    another = json.dumps({"host": "elsewhere", "pid": 7})
    with pytest.raises(LockLost, match="another job may be writing"), object_lock(store, NAME):
        store.write_bytes(NAME, another.encode())
        for _ in range(100):  # interrupted here
            time.sleep(0.1)
        raise AssertionError("nobody stopped it")
    assert store.read_bytes(NAME) == another.encode()
    assert signal.getsignal(locks.INTERRUPTION) == signal.SIG_DFL


@pytest.mark.usefixtures("quick")
def test_a_holder_beside_the_main_thread_hears_of_it_at_the_end(store: Store) -> None:
    heard: list[BaseException] = []

    def hold() -> None:
        try:
            with object_lock(store, NAME):
                store.write_json(NAME, {"host": "elsewhere", "pid": 7})
                time.sleep(1)
        except LockLost as lost:
            heard.append(lost)

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert len(heard) == 1
