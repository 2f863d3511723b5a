"""A PostgreSQL of the system's packages, in a folder of its own, on a free port."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.servers.processes import free_port, server_process

USER = "mlflow"


def program(name: str) -> str:
    """Its path; Debian keeps the server's programs out of PATH."""
    if found := shutil.which(name):
        return found
    packaged = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    assert packaged, f"{name} is not installed: infra/system_packages.sh tests"
    return str(packaged[-1])


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The URI of an empty database."""
    # Not below pytest's folder: PostgreSQL does not run as root, and nobody else may enter that.
    folder = Path(tempfile.mkdtemp(prefix="i2vgen-postgres-"))
    try:
        yield from _serve(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(folder: Path) -> Iterator[str]:
    who: dict[str, Any] = {}
    if os.getuid() == 0:
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    data, port = folder / "data", free_port()
    make = [program("initdb"), "-D", str(data), "-U", USER, "-A", "trust", "-E", "UTF8", "-N"]
    subprocess.run(make, check=True, capture_output=True, cwd=folder, **who)
    serve = [program("postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port)]
    serve += ["-k", str(folder), "-c", "fsync=off"]
    uri = f"postgresql://{USER}@127.0.0.1:{port}/postgres"
    with server_process(serve, folder / "log", lambda: _takes_queries(uri), cwd=folder, **who):
        yield uri


def _takes_queries(uri: str) -> bool:
    import psycopg

    try:
        with psycopg.connect(uri, connect_timeout=5) as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True
