"""Joining a Ray cluster, or starting a local one, with a clear word when neither is possible."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from pipelines.cluster.access import ask_for_token, check_authenticated, loopback_only
from pipelines.cluster.lost_ray import said_when_it_goes
from pipelines.config import ClusterConfig, RequestError
from pipelines.job import EXIT_TERMINATED, say
from pipelines.redaction import names_secret

REACH_TIMEOUT_S = 5.0
START_ATTEMPTS, STARTED_TOO_LATE, END_TIMEOUT_S = 3, "timed out during startup", 10.0
REPOSITORY = Path(__file__).resolve().parents[2]


def address_of(config: ClusterConfig) -> str | None:
    """The cluster to join, or None for a local Ray."""
    address = config.address or os.environ.get("RAY_ADDRESS", "")
    if not address or address == "local":
        return None
    if address.startswith(("http://", "https://")):
        raise RequestError(
            f"cluster.address {address}: that is the job server; submit with "
            f"`ray job submit --address {address} -- python jobs/...`, or give HOST:6379 here"
        )
    return address


def check_reachable(address: str) -> None:
    """Raises RequestError when nothing listens at HOST:PORT (`ray.init` would wait for minutes)."""
    if address == "auto":
        return
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        raise RequestError(f"Ray address {address!r}: expected HOST:PORT, e.g. 127.0.0.1:6379")
    try:
        socket.create_connection((host, port), timeout=REACH_TIMEOUT_S).close()
    except OSError as error:
        raise RequestError(
            f"Ray address {address}: nothing answers there ({error}); start a head with "
            "`ray start --head`, correct --cluster.address, or unset RAY_ADDRESS for a local Ray"
        ) from error


@contextmanager
def connect(config: ClusterConfig) -> Iterator[None]:
    """Joins or starts Ray for the block. A Ray that is already up in this process is reused."""
    os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray starts workers at niceness 15: on a machine that does anything else they starve.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    address = address_of(config)
    with ExitStack() as stack:
        if address is None:
            stack.enter_context(loopback_only())
            ask_for_token()
            with _sigterm_kept():
                _start_local(config)
        else:
            check_reachable(address)
            check_authenticated(address)
            with _sigterm_kept():
                _join(address)
        stack.callback(ray.shutdown)
        stack.enter_context(said_when_it_goes())
        quiet_ray_data()
        yield


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Leaves SIGTERM to the job (`pipelines.job.run`), which ends in order.

    Ray takes it for itself when it starts: the process would kill its own Ray, abort because that
    is gone, and leave what it has begun half done. While it starts it exits with the signal's
    number.
    """
    before = signal.getsignal(signal.SIGTERM)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        yield
    except SystemExit:
        raise SystemExit(EXIT_TERMINATED) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def resources_of_nodes() -> list[dict[str, float]]:
    """What each living node of the joined cluster has, by Ray's names (CPU, GPU, ...)."""
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def _start_local(config: ClusterConfig) -> None:
    """Ray gives its own processes 30 s to come up, which a busy machine does not always keep: what
    came up too late is ended, and another begun."""
    for attempt in range(1, START_ATTEMPTS + 1):
        before = set(psutil.Process().children())
        try:
            return _init_local(config)
        except Exception as error:  # Ray raises no narrower one
            if STARTED_TOO_LATE not in str(error) or attempt == START_ATTEMPTS:
                raise
            say("Ray did not start in time on this busy machine; starting it again")
            _end_all(set(psutil.Process().children()) - before)


def _end_all(processes: set[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=END_TIMEOUT_S)


def _init_local(config: ClusterConfig) -> None:
    import ray

    # RAY_ADDRESS=local would be read again by ray.init; the socket path must stay under 107 bytes.
    ray.init(
        address="local",
        num_cpus=config.num_cpus or None,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        _temp_dir=_short_temp_dir(),
        runtime_env={"env_vars": worker_environment()},
    )


def _join(address: str) -> None:
    import ray

    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # A driver started by the job server already carries the job's environment.
            runtime_env=None if _in_ray_job() else {"env_vars": worker_environment()},
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise RequestError(f"Ray address {address}: cannot join ({reason})") from error


def _in_ray_job() -> bool:
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def worker_environment() -> dict[str, str]:
    """What a worker needs to import this code and to stay off the network.

    No secret: Ray writes all of it into its workers' arguments, for everybody to see. A local Ray's
    workers inherit them; the nodes of a cluster have their own.
    """
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    handed_on = ("I2VGEN_", "MLFLOW_", "HF_HUB_", "FFMPEG_BINARY")
    kept = {k: v for k, v in os.environ.items() if k.startswith(handed_on) and not names_secret(k)}
    return {"PYTHONPATH": path, "WDS_SECURE": "1", "RAY_TRAIN_V2_ENABLED": "1", **kept}


def _short_temp_dir() -> str:
    base = Path(tempfile.gettempdir())
    return str(base / "ray") if len(str(base)) <= 20 else "/tmp/ray"


def quiet_ray_data() -> None:
    """Our own progress line replaces Ray Data's bars, and what our code raises arrives unwrapped.

    Of Ray's UserCodeException only the text would come out of the worker, not its cause.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.raise_original_map_exception = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its errors are raised as well
