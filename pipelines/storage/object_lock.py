"""One writer per output in an object store, decided by the store.

The holder's record is renewed every `HEARTBEAT_S`. Each write of it carries a condition: that there
is none, or that it is still the one that was read. So of two jobs that find it free, or find it
stale, at the same moment, one is told yes. Whether it is stale is told by the store's own clock, as
the time between its last change and a change made now: the clocks of the machines do not matter.

A holder that could not renew its record for `GIVE_UP_AFTER_S`, or finds another's in its place,
stops: whoever waits for it to become stale must not meet it. It is woken by a signal of its own:
SIGINT, which Ctrl-C sends, is ignored by what a script started in the background.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pipelines.config import RequestError
from pipelines.job import JobEnded
from pipelines.storage import Store
from pipelines.storage.durable_files import TEMPORARY_PREFIX
from pipelines.storage.object_store import Overtaken

HEARTBEAT_S = 20.0
STALE_AFTER_S = 180.0
GIVE_UP_AFTER_S = 120.0
INTERRUPTION = signal.SIGUSR1


class LockLost(JobEnded):
    """Another job writes there now, or may: this one must stop."""


class Held(RequestError):
    """A live job holds the lock; `record` is what it says of itself."""

    def __init__(self, record: str) -> None:
        super().__init__(record)
        self.record = record


def holder_record() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


@contextmanager
def object_lock(store: Store, name: str) -> Iterator[None]:
    """Holds `name` for the block. Raises Held; LockLost, out of the block, when it was lost: in
    the midst of it where that is the main thread's, else when it ends."""
    lock = _Lock(store, name)
    lock.take()
    thread = threading.Thread(target=lock.keep, daemon=True, name="writer-lock")
    try:
        with _interruptible() as lock.interrupt:
            thread.start()
            try:
                yield
            finally:
                lock.stop.set()
                thread.join()  # before the signal has another meaning again
                lock.release()
    except KeyboardInterrupt:
        if not lock.is_lost:
            raise
    if lock.is_lost:
        raise lock.lost_in_words()


@contextmanager
def _interruptible() -> Iterator[Callable[[], None]]:
    """Gives what raises KeyboardInterrupt in the block, from another thread; out of the main
    thread: what does nothing."""
    here = threading.current_thread()
    if here is not threading.main_thread():
        yield lambda: None
        return
    before = signal.signal(INTERRUPTION, signal.default_int_handler)
    try:
        yield lambda: signal.pthread_kill(here.ident or 0, INTERRUPTION)
    finally:
        signal.signal(INTERRUPTION, before)


class _Lock:
    def __init__(self, store: Store, name: str) -> None:
        self._store, self._name = store, name
        self._token, self._beats = uuid.uuid4().hex, 0
        self.stop, self.is_lost = threading.Event(), False
        self.interrupt: Callable[[], None] = lambda: None

    def take(self) -> None:
        """Raises Held."""
        version = self._store.version(self._name)
        try:
            if version is None:
                self._store.create_bytes(self._name, self._record())
            elif self._is_stale():
                self._store.replace_bytes(self._name, self._record(), version)
            else:
                raise Overtaken(self._name)
        except Overtaken:
            raise Held(self._record_there()) from None

    def keep(self) -> None:
        """Renews the record until `stop`; interrupts the holder when that cannot be."""
        renewed_s = time.monotonic()
        while not self.stop.wait(HEARTBEAT_S):
            try:
                self._renew()
                renewed_s = time.monotonic()
            except Overtaken:
                break
            except Exception:  # the store does not answer; the next beat may be heard
                if time.monotonic() - renewed_s > GIVE_UP_AFTER_S:
                    break
        else:
            return
        self.is_lost = True
        self.interrupt()

    def release(self) -> None:
        """Nobody waits for a record that is left behind for longer than it takes to be stale."""
        with suppress(Exception):
            if not self.is_lost and self._token in self._record_there():
                self._store.remove(self._name)

    def lost_in_words(self) -> LockLost:
        return LockLost(
            f"{self._store.path(self._name)}: could not be held, and another job may be writing "
            "there now; look which one shall, and run that command again"
        )

    def _renew(self) -> None:
        # In this order: whatever another writes after the first line, the last one refuses.
        version = self._store.version(self._name)
        if version is None or self._token not in self._record_there():
            raise Overtaken(self._name)
        self._store.replace_bytes(self._name, self._record(), version)

    def _record(self) -> bytes:
        self._beats += 1
        return json.dumps({**holder_record(), "token": self._token, "beat": self._beats}).encode()

    def _record_there(self) -> str:
        try:
            return self._store.read_bytes(self._name).decode("utf-8", "replace")
        except FileNotFoundError:
            return ""

    def _is_stale(self) -> bool:
        probe = f"{TEMPORARY_PREFIX}now-{self._token}"
        self._store.write_bytes(probe, b"")
        try:
            changed, now = (self._store.changed_s(name) for name in (self._name, probe))
        finally:
            self._store.remove(probe)
        return changed is None or now is None or now - changed > STALE_AFTER_S
