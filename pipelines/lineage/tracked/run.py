"""One run and what it records. Each method writes a record and returns; see ../spool/thread.py."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.lineage.spool.thread import Delivery
from pipelines.lineage.tracked.recorder import Recorder
from pipelines.lineage.tracked.records import (
    CONTEXT_TAG,
    MODEL_DIGEST_TAG,
    MODEL_URI_TAG,
    PLACE_TAG,
)
from pipelines.lineage.tracked.values import (
    PARAM_CHARACTERS,
    TAG_CHARACTERS,
    as_json,
    clean,
    fit,
    flatten,
    safe_key,
)
from pipelines.storage import absolute_uri, is_local


class Run:
    """One job's record. `Tracker.run` ends it; `close` ends a worker's part of it."""

    def __init__(self, delivery: Delivery | None, ref: str, *, started: bool = False) -> None:
        """`ref`: MLflow's id, or `pending-KEY`. `started`: here, not joined."""
        self._delivery, self.ref = delivery, ref
        self._is_open = delivery is not None
        if delivery is not None:
            delivery.opened(ref, started=started)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def run_id(self) -> str:
        """MLflow's id once the run is there, before that `pending-KEY`: the run's tag
        `i2vgen.key` is KEY then. Either can be resumed, or be a parent. Empty when tracking is
        off."""
        return (self._recorder and self._recorder.known_id(self.ref)) or self.ref

    @property
    def _recorder(self) -> Recorder | None:
        sink = self._delivery.sink if self._delivery else None
        return sink if isinstance(sink, Recorder) else None

    @property
    def ui_hint(self) -> str:
        """Path and fragment of this run in the MLflow UI, in the view that shows runs; empty
        while the run is not there."""
        run_id = self._recorder.known_id(self.ref) if self._recorder else None
        return self._recorder.page_of(run_id) if self._recorder and run_id else ""

    def ui_url(self, server: str = "") -> str:
        """Its page on `server`, or on the tracking server that records it; empty without one."""
        server = server or (self._delivery.uri if self._delivery else "")
        is_server = server.startswith(("http://", "https://"))
        return server.rstrip("/") + self.ui_hint if is_server and self.ui_hint else ""

    # --- values --------------------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """A run has one point of a name at a step: the first."""
        if self._delivery is None or not metrics:
            return
        values = {safe_key(name): _plain(float(value)) for name, value in metrics.items()}
        record = {
            "op": "metrics",
            "run": self.ref,
            "at_ms": int(time.time() * 1000),
            "step": int(step),
            "values": values,
        }
        self._delivery.submit(record, urgent=False)

    def log_params(self, params: Mapping[str, Any]) -> None:
        self._log_values("params", flatten(params), PARAM_CHARACTERS, "long_values.json")

    def set_tags(self, tags: Mapping[str, str]) -> None:
        plain = {safe_key(key): clean(str(value)) for key, value in tags.items()}
        self._log_values("tags", plain, TAG_CHARACTERS, "long_tags.json")

    def _log_values(self, op: str, values: dict[str, str], limit: int, long_file: str) -> None:
        if not values:
            return
        short, long = fit(values, limit)
        self._send(op, values=short)
        if long:
            self.log_dict(long, long_file)

    # --- inputs and outputs ----------------------------------------------------------------

    def log_input_dataset(self, name: str, uri: str, digest: str, context: str) -> None:
        """What the run read or wrote: `context` is "output", "training", "encoding", ..."""
        uri = absolute_uri(uri)
        source = "local" if is_local(uri) else uri.partition("://")[0]
        tags = {CONTEXT_TAG: context, PLACE_TAG: uri}
        self._send("dataset", name=clean(name), digest=digest, source=source, tags=tags)

    def log_output_model(
        self,
        name: str,
        uri: str,
        digest: str,
        step: int,
        params: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
    ) -> str | None:
        """Records a checkpoint by reference; the same digest is the same model, however often.

        `tags`: more than its own digest, place and step. Returns what `log_input_model` takes:
        the digest, None when tracking is off.
        """
        if self._delivery is None:
            return None
        short, _ = fit(flatten(params), PARAM_CHARACTERS)
        own = {
            MODEL_DIGEST_TAG: digest,
            MODEL_URI_TAG: absolute_uri(uri),
            "checkpoint.step": str(step),
        }
        more = {key: clean(str(value)) for key, value in (tags or {}).items()}
        self._send(
            "model",
            name=clean(name),
            digest=digest,
            step=int(step),
            params=short,
            tags={**more, **own},
        )
        return digest

    def log_input_model(self, model: str | None) -> None:
        """Links this run to a checkpoint it starts from, by digest or by MLflow's id of the
        model; nothing for None."""
        if model:
            self._send("input", model=model)

    # --- files ---------------------------------------------------------------------------

    def log_artifact(self, local_path: str | Path, folder: str = "") -> None:
        """A file's copy beside the run: a page, a sample video, the configuration. The file may
        go when this returns, up to the size in spool_attachments.py."""
        if self._delivery is not None:
            self._delivery.attach(self.ref, Path(local_path), folder)

    def log_dict(self, obj: Mapping[str, Any], file: str) -> None:
        if self._delivery is not None:
            text = as_json(dict(obj), indent=2)
            self._delivery.attach_bytes(self.ref, text.encode(), file)

    # --- the end -------------------------------------------------------------------------

    def _send(self, op: str, **values: Any) -> None:
        if self._delivery is not None:
            self._delivery.submit({"op": op, "run": self.ref, **values})

    def flush(self) -> None:
        """What was recorded goes on its way now. It is on disk already."""
        if self._delivery is not None:
            self._delivery.flush()

    def close(self) -> None:
        """Waits for the delivery as long as the store answers; what is left goes later."""
        if self._delivery is not None and self._is_open:
            self._is_open = False
            self._delivery.closed(self.ref)
            self._delivery.settle()

    def end(self, status: str) -> None:
        self._send("end", status=status, at_ms=int(time.time() * 1000))
        self.close()


def _plain(value: float) -> float | str:
    """JSON has no NaN and no infinity; `float` reads them from text."""
    return value if math.isfinite(value) else str(value)
