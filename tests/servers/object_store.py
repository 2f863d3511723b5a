"""An S3-compatible store with one bucket."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.servers.processes import answers, free_port, server_process

BUCKET = "mlflow"


@dataclass(frozen=True)
class ObjectStore:
    endpoint: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def uri(self) -> str:
        return f"s3://{BUCKET}"

    def new_prefix(self) -> str:
        """A URI with nothing below it."""
        return f"{self.uri}/place-{next(self._numbers)}"

    @property
    def environment(self) -> dict[str, str]:
        """What clients need to know."""
        return environment_at(self.endpoint)

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            region_name="us-east-1",
        )

    def names(self) -> list[str]:
        """Of every object."""
        found = self.client().list_objects_v2(Bucket=BUCKET)
        return sorted(entry["Key"] for entry in found.get("Contents", []))

    def put_folder(self, folder: Path, prefix_uri: str) -> None:
        """Every file of a folder, under the same names."""
        client = self.client()
        prefix = prefix_uri.removeprefix(f"{self.uri}/")
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            key = f"{prefix}/{path.relative_to(folder).as_posix()}"
            client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())


def environment_at(endpoint: str) -> dict[str, str]:
    """For a store, or a proxy before it."""
    return {
        "MLFLOW_S3_ENDPOINT_URL": endpoint,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }


@contextlib.contextmanager
def set_in_this_process(environment: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """`folder` gets its log."""
    port = free_port()
    store = ObjectStore(f"http://127.0.0.1:{port}")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with server_process(command, folder / "objects.log", lambda: answers(store.endpoint)):
        store.client().create_bucket(Bucket=BUCKET)
        yield store
