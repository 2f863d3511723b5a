"""An MLflow server that can be killed and started again at the same address."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.servers.processes import answers, end, free_port, server_process

QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


class MlflowServer:
    """Use as a context manager; within it, `kill` and `start` as often as needed."""

    def __init__(
        self,
        folder: Path,
        backend_uri: str,
        artifacts: str,
        environment: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.environment = {**QUIET, **(environment or {})}
        self._command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        self._command += ["--host", "127.0.0.1", "--port", str(self.port)]
        self._command += ["--backend-store-uri", backend_uri]
        self._command += ["--artifacts-destination", artifacts, *options]
        self._running = contextlib.ExitStack()

    def start(self) -> None:
        """Ready when it returns."""
        self._process = self._running.enter_context(
            server_process(
                self._command,
                self.folder / "mlflow-server.log",
                lambda: answers(f"{self.uri}/version"),
                self.environment,
                cwd=self.folder,
            )
        )

    def kill(self) -> None:
        """At once, with its workers, as a machine that goes away."""
        end(self._process, signal.SIGKILL)
        self._running.close()

    def __enter__(self) -> MlflowServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()


@contextlib.contextmanager
def mlflow_server(folder: Path, backend_uri: str = "", artifacts: str = "") -> Iterator[str]:
    """Its address. By default on sqlite and files in `folder`."""
    backend_uri = backend_uri or f"sqlite:///{folder}/server.db"
    with MlflowServer(folder, backend_uri, artifacts or str(folder / "artifacts")) as server:
        yield server.uri
