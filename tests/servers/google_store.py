"""A stand-in for Google's object store with one bucket."""

from __future__ import annotations

import contextlib
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.servers.processes import answers, free_port, server_process

BUCKET = "films"


@contextlib.contextmanager
def google_store(folder: Path) -> Iterator[str]:
    """Its address, for STORAGE_EMULATOR_HOST. `folder` gets its log."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "gcp_storage_emulator.__main__", "start", "--in-memory"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with server_process(command, folder / "google.log", lambda: answers(address)):
        make = urllib.request.Request(
            f"{address}/storage/v1/b?project=test",
            b'{"name": "%s"}' % BUCKET.encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(make, timeout=30).close()
        yield address
