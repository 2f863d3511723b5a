from __future__ import annotations

import http.server
import socket
import threading
from pathlib import Path

import pytest

from pipelines.config import RequestError
from pipelines.lineage.tracked import uri as tracking_uri


@pytest.mark.parametrize(
    "uri",
    ["sqlite:////data/a b/mlflow.db", "http://127.0.0.1:5000", "https://tracking.example.org"],
)
def test_absolute_places_are_taken(uri: str) -> None:
    assert tracking_uri.resolve(uri, {}) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "sqlite:///mlflow.db",  # MLflow's own default: relative to the working directory
        "sqlite://",
        "sqlite:////",
        "sqlite:////data/mlflow.db?mode=ro",
        "./mlruns",
        "/data/mlruns",
        "file:///data/mlruns",
        "postgresql://u:secret@db/mlflow",
        "http://user:secret@server",
        "http://",
        "http://server:port",
        "https://user:secret@:5000",
    ],
)
def test_others_are_refused_without_telling_secrets(uri: str) -> None:
    with pytest.raises(RequestError) as refused:
        tracking_uri.resolve(uri, {})
    assert "\n" not in str(refused.value) and "secret" not in str(refused.value)


def test_weakest_first_default_then_environment_then_request() -> None:
    home = {"I2VGEN_HOME": "/home/me/state"}
    assert tracking_uri.resolve("", home) == "sqlite:////home/me/state/mlflow.db"
    server = {**home, "MLFLOW_TRACKING_URI": "http://server:5000/"}
    assert tracking_uri.resolve("", server) == "http://server:5000"
    assert tracking_uri.resolve("sqlite:////x.db", server) == "sqlite:////x.db"
    assert tracking_uri.resolve("", {}).startswith(f"sqlite:///{Path.home()}")
    with pytest.raises(RequestError, match="absolute"):
        tracking_uri.resolve("", {"I2VGEN_HOME": "state"})


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="writable"):
        tracking_uri.prepare_sqlite_folder(tmp_path / "file" / "mlflow.db")


def test_a_closed_port_and_no_http_are_refused_quickly() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(RequestError, match="no MLflow server answers"):
        tracking_uri.check_server(f"http://127.0.0.1:{port}")
    with pytest.raises(RequestError, match="no MLflow server answers"):
        tracking_uri.check_server("http://no-such-host.invalid")


def test_any_http_answer_counts_as_an_answer() -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        tracking_uri.check_server(f"http://127.0.0.1:{server.server_port}")
    finally:
        server.shutdown()
        server.server_close()
