"""An S3-compatible store with one bucket."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.processes import answers, free_port, server_process

BUCKET = "mlflow"


@dataclass(frozen=True)
class ObjectStore:
    endpoint: str

    @property
    def uri(self) -> str:
        return f"s3://{BUCKET}"

    @property
    def environment(self) -> dict[str, str]:
        """What clients need to know."""
        return {
            "MLFLOW_S3_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

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


@contextlib.contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """`folder` gets its log."""
    port = free_port()
    store = ObjectStore(f"http://127.0.0.1:{port}")
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with server_process(command, folder / "objects.log", lambda: answers(store.endpoint)):
        store.client().create_bucket(Bucket=BUCKET)
        yield store
