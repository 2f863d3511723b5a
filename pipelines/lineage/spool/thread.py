"""The thread that delivers a process's records, and what earlier processes left.

The job's own thread only appends to a file. At the end of a run it waits for the delivery as long
as the store answers, and no longer: what is left goes later.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipelines import metrics
from pipelines.lineage.spool.attachments import Attachments
from pipelines.lineage.spool.files import Record, SpoolFolder, folders_below, store_folder
from pipelines.lineage.spool.replay import send_folder
from pipelines.lineage.spool.spool import Sender, Sink, Spool, Verdict, one_line

logger = logging.getLogger(__name__)

LINGER_S = 2.0  # metrics of so long go together
FIRST_RETRY_S = 5.0
LAST_RETRY_S = 120.0
NOT_YET_S = 0.5
LEFT_OVERS_EVERY_S = 60.0
GAVE_UP_FOR_S = 10.0
IDLE_S = 3600.0
STOP_S = 0.5
REASON_CHARACTERS = 160


@dataclass(frozen=True)
class Patience:
    """How long the end of a run waits: `quiet_s` without any answer, `total_s` in all."""

    quiet_s: float
    total_s: float


OF_SERVER = Patience(3.0, 10.0)
OF_FILE = Patience(60.0, 600.0)  # a sqlite store is as near as the disk


class Delivery:
    """A process's way to one store. Its methods never raise because of the store or the disk."""

    def __init__(
        self, root: Path, uri: str, project: str, connect: Callable[[], Sink], patience: Patience
    ) -> None:
        self.uri = uri
        self.spool = Spool(lambda: SpoolFolder.create(root, uri, project))
        self._store = store_folder(root, uri, project)
        self._connect, self._patience = connect, patience
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._sender: Sender | None = None
        self._users = 0
        self._started: list[str] = []
        self._submitted = self._delivered = 0
        self._asked = self._failed_asked = 0
        self._urgent = self._at_once = self._stopped = self._warned = False
        self._next_try_s = self._next_look_s = self._round_s = 0.0
        self._pause_s = FIRST_RETRY_S
        self._progress_s = 0.0
        self._gave_up_s = float("-inf")

    # --- the job's side ------------------------------------------------------------------

    def submit(self, record: Record, *, urgent: bool = True) -> None:
        """On disk when it returns; on its way soon."""
        with self._changed:  # the thread removes the folder only when nothing is being written
            self.spool.append(record)
            self._told(urgent)

    def attach(self, run: str, source: Path, folder: str) -> None:
        """A copy of a file (spool_attachments.py says up to which size)."""
        self._keep(str(source), lambda kept: kept.keep(run, source, folder))

    def attach_bytes(self, run: str, data: bytes, name: str) -> None:
        self._keep(name, lambda kept: kept.keep_bytes(run, data, name))

    def _keep(self, what: str, keep: Callable[[Attachments], None]) -> None:
        with self._changed:
            kept = self.spool.attachments()
            if kept is None:
                return
            try:
                keep(kept)
            except OSError as error:
                logger.warning("tracking: %s is not kept (%s)", what, one_line(error))
            self._told(urgent=True)

    def _told(self, urgent: bool) -> None:
        self._submitted += 1
        self._tell_waiting()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
            self._thread.start()
        if urgent:
            self._urgent = True
            self._changed.notify_all()

    def _tell_waiting(self) -> None:
        metrics.MLFLOW_WAITING.set(self._submitted - self._delivered)

    def opened(self, run: str, *, started: bool) -> None:
        """`started`: by us, so that it is over when we are; not joined."""
        with self._changed:
            self._users += 1
            if started:
                self._started.append(run)
                self.spool.set_open_runs(self._started)

    def closed(self, run: str) -> None:
        with self._changed:
            self._users -= 1
            if run in self._started:
                self._started.remove(run)
                self.spool.set_open_runs(self._started)

    @property
    def sink(self) -> Sink | None:
        """None before the store has answered once."""
        return self._sender.sink if self._sender else None

    def flush(self) -> None:
        """Delivers what waits now rather than soon; does not wait for it."""
        with self._changed:
            self._urgent = True
            self._changed.notify_all()

    def settle(self) -> bool:
        """Waits until everything submitted so far is delivered, while the store answers."""
        with self._changed:
            wanted, started_s = self._submitted, time.monotonic()
            if self._delivered >= wanted:
                return True
            if started_s - self._gave_up_s < GAVE_UP_FOR_S:
                return False
            self._asked += 1
            asked = self._asked
            self._at_once = True
            self._changed.notify_all()
            while self._delivered < wanted and self._failed_asked < asked:
                left_s = self._left_s(started_s)
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            if self._delivered >= wanted:
                return True
            self._gave_up_s = time.monotonic()
        self._warn("the store is slow")
        return False

    def _left_s(self, started_s: float) -> float:
        heard_s = max(started_s, self._progress_s)
        end_s = min(heard_s + self._patience.quiet_s, started_s + self._patience.total_s)
        return end_s - time.monotonic()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(STOP_S)

    # --- the thread's side -----------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and (wait_s := self._until_due_s()) > 0:
                    self._changed.wait(wait_s)
                if self._stopped:
                    return
                self._urgent = self._at_once = False
                wanted, asked = self._submitted, self._asked
            try:
                self._round(wanted, asked)
            except Exception as error:  # a bug of ours must not end the thread without a word
                self._failed(error, Verdict.LATER, asked)
            self._round_s = time.monotonic()

    def _until_due_s(self) -> float:
        now_s = time.monotonic()
        if self._at_once:
            return 0.0
        if self._delivered < self._submitted:
            soon_s = 0.0 if self._urgent else self._round_s + LINGER_S
            return max(soon_s, self._next_try_s) - now_s
        return self._next_look_s - now_s if self._users else IDLE_S

    def _round(self, wanted: int, asked: int) -> None:
        try:
            if self._sender is None:
                self._sender = Sender(self.spool, self._connect(), self._progressed)
        except Exception as error:
            self._failed(error, Verdict.LATER, asked)
            return
        self._send_left_overs(self._sender.sink)
        sent = self._sender.send_records()
        if sent.verdict is not Verdict.LATER and self.spool.place:
            files = self._sender.send_files(Attachments(self.spool.place))
            sent.error, sent.verdict = sent.error or files.error, sent.verdict or files.verdict
        if sent.error:
            self._failed(sent.error, sent.verdict or Verdict.LATER, asked)
        else:
            self._succeeded(wanted)

    def _send_left_overs(self, sink: Sink) -> None:
        """Before our own: the job that was killed began the run that this one goes on in."""
        now_s = time.monotonic()
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LEFT_OVERS_EVERY_S
        for path in folders_below(self._store):
            with contextlib.suppress(OSError):
                folder = SpoolFolder.take(path)
                if folder and send_folder(folder, sink, self._progressed).verdict is Verdict.LATER:
                    return

    def _progressed(self) -> None:
        with self._changed:
            self._progress_s = time.monotonic()
            self._changed.notify_all()

    def _succeeded(self, wanted: int) -> None:
        with self._changed:
            self._delivered = wanted
            self._tell_waiting()
            self._next_try_s, self._pause_s = 0.0, FIRST_RETRY_S
            self._gave_up_s, self._warned = float("-inf"), False
            if not self._users and self._delivered == self._submitted:
                with contextlib.suppress(OSError):
                    self.spool.remove()
            self._changed.notify_all()

    def _failed(self, error: Exception, verdict: Verdict, asked: int) -> None:
        with self._changed:
            now_s = time.monotonic()
            if verdict is Verdict.NOT_YET:
                self._next_try_s = now_s + NOT_YET_S
                return
            self._next_try_s = now_s + self._pause_s
            self._pause_s = min(2 * self._pause_s, LAST_RETRY_S)
            self._failed_asked = asked
            self._changed.notify_all()
        with contextlib.suppress(OSError):
            self.spool.sync()  # it may wait for long
        self._warn(one_line(error, REASON_CHARACTERS).removeprefix("tracking: "))

    def _warn(self, reason: str) -> None:
        """Once, until it works again."""
        if not self._warned:
            self._warned = True
            logger.warning(
                "tracking: %s takes no records now (%s); the job goes on, they wait in %s and go "
                "when it is back, or with `python jobs/replay.py`",
                self.uri,
                reason,
                self.spool.place or "memory",
            )


# --- one for each store in a process --------------------------------------------------------

_deliveries: dict[tuple[int, Path, str, str], Delivery] = {}
_guard = threading.Lock()


def delivery_to(
    root: Path, uri: str, project: str, connect: Callable[[], Sink], patience: Patience
) -> Delivery:
    """The process's delivery to a store: all its runs there go one way, in order."""
    with _guard:
        key = (os.getpid(), root, uri, project)
        if key not in _deliveries:
            _deliveries[key] = Delivery(root, uri, project, connect, patience)
        return _deliveries[key]


@atexit.register
def _stop_all() -> None:
    for (pid, *_), delivery in list(_deliveries.items()):
        if pid == os.getpid():
            delivery.stop()
