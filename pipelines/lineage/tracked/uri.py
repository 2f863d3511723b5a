"""Where runs are recorded: an absolute sqlite file or an MLflow server.

MLflow's own default is `sqlite:///mlflow.db` relative to the working directory, which in a Ray
job is a copy of the package that vanishes with the job; so relative paths are refused.
"""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from pipelines.config import RequestError

HOME_VARIABLE = "I2VGEN_HOME"
URI_VARIABLE = "MLFLOW_TRACKING_URI"
SQLITE = "sqlite:///"
REACH_TIMEOUT_S = 5.0


def resolve(uri: str, environment: Mapping[str, str] = os.environ) -> str:
    """The URI asked for, else the environment's, else a sqlite file in our home folder.

    Raises RequestError on a relative sqlite path, a credential in the URI, or a kind of store
    that cannot record models and inputs.
    """
    uri = (uri or environment.get(URI_VARIABLE, "")).strip() or default_uri(environment)
    if uri.startswith(("http://", "https://")):
        return _server(uri)
    if uri.startswith("sqlite:"):
        return _sqlite(uri)
    raise RequestError(
        f"tracking: {uri.split('@')[-1]} is not supported; "
        "give sqlite:////absolute/file.db or http(s)://server"
    )


def default_uri(environment: Mapping[str, str] = os.environ) -> str:
    return f"{SQLITE}{home(environment)}/mlflow.db"


def spool_root(environment: Mapping[str, str] = os.environ) -> Path:
    """Where records wait that a store does not take now (spool_files.py)."""
    return home(environment) / "spool"


def home(environment: Mapping[str, str] = os.environ) -> Path:
    """The folder of this project's state on this machine. Raises RequestError."""
    folder = Path(environment.get(HOME_VARIABLE) or Path.home() / ".i2vgen-ray")
    if not folder.is_absolute():
        raise RequestError(f"{HOME_VARIABLE}={folder}: give an absolute path")
    return folder


def sqlite_path(uri: str) -> Path | None:
    """The database file of a resolved URI; None for a server."""
    return Path(uri.removeprefix(SQLITE)) if uri.startswith(SQLITE) else None


def _sqlite(uri: str) -> str:
    path = uri.removeprefix(SQLITE)
    if not uri.startswith(SQLITE + "/") or "?" in path or path.endswith("/"):
        raise RequestError(
            f"tracking: {uri} is not an absolute file; give sqlite:////absolute/file.db"
        )
    return uri


def _server(uri: str) -> str:
    try:
        parts = urllib.parse.urlsplit(uri)
        is_address = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise RequestError(
            f"tracking: {uri.split('@')[-1]} is no server's address; give http(s)://server:port"
        )
    if parts.username or parts.password:
        raise RequestError(
            f"tracking: credentials in the URI of {parts.hostname} would end up in logs; "
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )
    return uri.rstrip("/")


def prepare_sqlite_folder(path: Path) -> None:
    """Raises RequestError when the database's folder cannot be made or written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"tracking: {path.parent}: {error.strerror}; give a writable folder in --tracking.uri"
        ) from error
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise RequestError(f"tracking: {path} is not writable; give another --tracking.uri")


def check_server(uri: str) -> None:
    """For readers. Raises RequestError when nothing answers HTTP there. Any HTTP answer will do:
    whether the server accepts us is asked through its API (`/health` is green even where that
    answers 403).
    """
    import urllib.error
    import urllib.request

    try:
        urllib.request.urlopen(f"{uri}/version", timeout=REACH_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise RequestError(
            f"tracking: no MLflow server answers at {uri} ({reason}); start one, or give "
            "--tracking.uri sqlite:////absolute/file.db"
        ) from error
