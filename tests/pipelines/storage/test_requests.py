"""How many requests a question to an S3-compatible store takes, and that fewer prove as much."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pytest

from pipelines.curation.commit_log import AttemptCap, CommitLog
from pipelines.curation.publish import remove_scratch
from pipelines.storage import Store, object_store
from pipelines.storage.fetching import WrongBytes
from pipelines.storage.object_store import StoreUnreachable
from pipelines.storage.writer_lock import LOCK_FILE, writer_lock
from tests.servers.faulty_store import Faults, FaultyStore
from tests.servers.object_store import BUCKET, ObjectStore, environment_at, set_in_this_process
from tests.servers.objects_here import objects

__all__ = ["objects"]

TABLE = pa.table({"clip_id": ["x", "y"]})


@pytest.fixture
def counted(objects: ObjectStore) -> Iterator[FaultyStore]:
    with (
        FaultyStore(objects.endpoint, Faults(), seed=1) as proxy,
        set_in_this_process(environment_at(proxy.endpoint)),
    ):
        yield proxy


def kinds(counted: FaultyStore) -> list[str]:
    """Of the requests since this was last asked."""
    found = ["LIST" if "list-type=" in path else method for method, path in counted.requests]
    counted.requests.clear()
    return found


def test_a_commit_is_asked_for_once(objects: ObjectStore, counted: FaultyStore) -> None:
    log = CommitLog(Store.open(objects.new_prefix()), "watch", "k")
    assert log.read("a") is None and kinds(counted) == ["GET"]
    assert not log.has("a") and kinds(counted) == ["HEAD"]
    log.write("a", TABLE)
    assert kinds(counted) == ["PUT"]
    assert log.read("a") == TABLE and kinds(counted) == ["GET"]
    assert log.has("a") and kinds(counted) == ["HEAD"]


def test_parts_are_found_with_one_listing(objects: ObjectStore, counted: FaultyStore) -> None:
    log = CommitLog(Store.open(objects.new_prefix()), "captions", "k")
    assert list(log.read_parts("a")) == [] and kinds(counted) == ["LIST"]
    assert set(log.committed()) == set() and kinds(counted) == ["LIST"]
    log.add("a", TABLE)
    log.add("ab", TABLE.slice(1))  # a name that begins like the other
    kinds(counted)
    assert list(log.read_parts("a")) == [TABLE] and kinds(counted) == ["LIST", "GET"]


def test_an_attempt_is_asked_for_and_marked(objects: ObjectStore, counted: FaultyStore) -> None:
    attempts = AttemptCap(Store.open(objects.new_prefix()), "run", 1)
    assert attempts.begin("watch", "a") and kinds(counted) == ["HEAD", "PUT"]
    assert not attempts.begin("watch", "a") and kinds(counted) == ["HEAD"]


def test_a_table_is_a_file_or_its_parts(objects: ObjectStore, counted: FaultyStore) -> None:
    store = Store.open(objects.new_prefix())
    store.write_table("parts.parquet/part-0.parquet", TABLE)
    store.write_table("parts.parquet/part-1.parquet", TABLE)
    kinds(counted)
    assert store.read_table("parts.parquet").num_rows == 4
    assert kinds(counted) == ["GET", "LIST", "GET", "GET"]
    with pytest.raises(FileNotFoundError):
        store.read_table_file("parts.parquet")


def test_what_no_etag_proves_is_asked_about(objects: ObjectStore, counted: FaultyStore) -> None:
    store = Store.open(objects.new_prefix())
    store.write_table("t.parquet", TABLE)
    data, key = store.read_bytes("t.parquet"), f"{store.uri}/t.parquet".split("/", 3)[3]
    client = objects.client()
    upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
    part = {"Bucket": BUCKET, "Key": key, "UploadId": upload, "PartNumber": 1}
    etag = client.upload_part(**part, Body=data)["ETag"]
    client.complete_multipart_upload(
        Bucket=BUCKET,
        Key=key,
        UploadId=upload,
        MultipartUpload={"Parts": [{"ETag": etag, "PartNumber": 1}]},
    )
    kinds(counted)
    assert store.read_table("t.parquet") == TABLE and kinds(counted) == ["GET", "HEAD", "GET"]


@pytest.mark.parametrize("fault", ["flip", "short"])
def test_a_commit_whose_bytes_come_wrong_is_not_believed(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(object_store, "FIRST_PAUSE_S", 0.01)
    log = CommitLog(Store.open(objects.new_prefix()), "watch", "k")
    log.write("a", TABLE)
    with (
        FaultyStore(objects.endpoint, Faults(**{fault: 0.5}), seed=3) as faulty,
        set_in_this_process(environment_at(faulty.endpoint)),
    ):
        for _ in range(10):
            assert log.read("a") == TABLE
        assert faulty.injected[fault] > 3
        faulty.faults = Faults(short=1.0)
        with pytest.raises((WrongBytes, StoreUnreachable)):  # whoever compares first
            log.read("a")


def test_a_job_that_clears_its_scratch_still_holds_its_lock(objects: ObjectStore) -> None:
    store = Store.open(objects.new_prefix())
    with writer_lock(store):
        store.write_bytes("_work/cuts/a.mp4", b"")
        remove_scratch(store, Store(f"{store.uri}-work"))
        assert store.list_files() == [LOCK_FILE]
    assert store.list_files() == []
