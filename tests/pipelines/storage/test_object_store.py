"""What a store that fails in passing does to us: nothing; and one that fails for good: one line."""

from __future__ import annotations

import itertools
import random
import time

import pyarrow as pa
import pytest

from pipelines.config import RequestError
from pipelines.storage import Store, object_store
from pipelines.storage.fetching import WrongBytes
from pipelines.storage.object_store import Overtaken, StoreUnreachable
from tests.servers.faulty_store import Faults, FaultyStore
from tests.servers.object_store import BUCKET, ObjectStore, environment_at, set_in_this_process
from tests.servers.objects_here import objects
from tests.servers.processes import free_port

__all__ = ["objects"]

EVERY_FAULT = Faults(*([0.05] * 8))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """As patient as ever, in less time."""
    monkeypatch.setattr(object_store, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setenv(object_store.READ_TIMEOUT_VARIABLE, "0.5")


def write_and_read(store: Store, seed: int) -> None:
    """Every kind of request; asserts that what is read is what was written."""
    data = random.Random(seed).randbytes(50_000)
    table = pa.table({"n": list(range(5000)), "text": [str(n) for n in range(5000)]})
    store.write_bytes("a/bytes", data)
    store.write_json("a/json", {"seed": seed})
    store.write_table("b/table.parquet", table)
    store.create_bytes("b/new", data)
    assert store.read_bytes("a/bytes") == data
    assert store.read_json("a/json") == {"seed": seed}
    assert store.read_table("b/table.parquet").equals(table)
    assert store.read_table("b/table.parquet", columns=["text"]).equals(table.select(["text"]))
    assert pa.concat_tables(store.read_table_groups("b/table.parquet")).equals(table)
    with store.as_local_file("b/new") as path:
        assert path.read_bytes() == data
    version = store.version("b/new")
    assert version is not None
    store.replace_bytes("b/new", b"newer", version)
    with pytest.raises(Overtaken):
        store.replace_bytes("b/new", b"newest", version)
    with pytest.raises(Overtaken):
        store.create_bytes("b/new", b"newest")
    store.remove("a")
    assert not store.exists("a/json") and store.list_folders() == ["b"]
    assert store.list_files() == ["b/new", "b/table.parquet"]


@pytest.mark.usefixtures("hasty")
def test_what_fails_in_passing_is_not_noticed(objects: ObjectStore) -> None:
    with (
        FaultyStore(objects.endpoint, EVERY_FAULT, seed=5, stall_s=1.0) as faulty,
        set_in_this_process(environment_at(faulty.endpoint)),
    ):
        for seed in range(4):
            write_and_read(Store.open(objects.new_prefix()), seed)
    print(f"{len(faulty.requests)} requests, faults {dict(faulty.injected)}")
    assert len(faulty.injected) == 8


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("fault", ["error_500", "reset"])
def test_what_fails_for_good_is_said_in_one_line(objects: ObjectStore, fault: str) -> None:
    store = Store.open(objects.new_prefix())
    store.write_json("x.json", {})
    with (
        FaultyStore(objects.endpoint, Faults(**{fault: 1.0}), seed=1) as faulty,
        set_in_this_process(environment_at(faulty.endpoint)),
        pytest.raises(StoreUnreachable, match="does not answer as it should") as caught,
    ):
        store.read_bytes("x.json")
    assert "\n" not in str(caught.value) and store.path("x.json") in str(caught.value)
    bound = object_store.TRIES * object_store.CLIENT_TRIES
    assert bound / 2 <= len(faulty.requests) <= 4 * bound  # s3fs and aiohttp repeat some, too
    assert store.read_json("x.json") == {}  # and later it goes on


@pytest.mark.usefixtures("hasty")
def test_bytes_that_never_come_right_are_refused(objects: ObjectStore) -> None:
    store = Store.open(objects.new_prefix())
    store.write_table("t.parquet", pa.table({"n": list(range(9999))}))
    with (
        FaultyStore(objects.endpoint, Faults(flip=1.0), seed=1) as faulty,
        set_in_this_process(environment_at(faulty.endpoint)),
    ):
        with pytest.raises((WrongBytes, StoreUnreachable)):
            store.read_table("t.parquet")
        with pytest.raises((WrongBytes, StoreUnreachable)), store.as_local_file("t.parquet"):
            pass
        faulty.faults = Faults(short=1.0)
        with pytest.raises((WrongBytes, StoreUnreachable)), store.as_local_file("t.parquet"):
            pass


@pytest.mark.usefixtures("hasty")
def test_a_store_that_is_not_there_is_said_in_one_line(
    objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RequestError, match="there is no such bucket"):
        Store.open("s3://no-such-bucket/set").check_writable()
    assert not Store.open("s3://no-such-bucket/set").exists("dataset.json")
    with (
        set_in_this_process(environment_at(f"http://127.0.0.1:{free_port()}")),
        pytest.raises(StoreUnreachable, match="does not answer"),
    ):
        Store.open(f"s3://{BUCKET}/set").exists("dataset.json")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(RequestError, match="access is refused"):
        Store.open(f"s3://{BUCKET}/set").exists("dataset.json")
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_file_that_names_all_others_is_written_once(objects: ObjectStore) -> None:
    store = Store.open(objects.new_prefix())
    store.publish_bytes("dataset.json", b"mine")
    store.publish_bytes("dataset.json", b"mine")  # an answer that was lost
    with pytest.raises(RequestError, match="another job was first"):
        store.publish_bytes("dataset.json", b"yours")
    assert store.read_bytes("dataset.json") == b"mine"


def test_a_read_is_one_request(objects: ObjectStore) -> None:
    store = Store.open(objects.new_prefix())
    store.write_bytes("x", b"1")
    store.write_table("t.parquet", pa.table({"n": [1]}))
    with (
        FaultyStore(objects.endpoint, Faults(), seed=1) as counted,
        set_in_this_process(environment_at(counted.endpoint)),
    ):
        store.read_bytes("x")
        assert [method for method, _ in counted.requests] == ["GET"]
        counted.requests.clear()
        store.read_table("t.parquet", columns=["n"])
        assert [method for method, _ in counted.requests] == ["GET"]
        counted.requests.clear()
        assert store.exists("x")
        assert [method for method, _ in counted.requests] == ["HEAD"]


def test_patience_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with pytest.raises(StoreUnreachable):
        object_store.patiently("s3://x", lambda: (_ for _ in ()).throw(TimeoutError("slow")))
    assert len(pauses) == object_store.TRIES - 1
    assert all(after > before for before, after in itertools.pairwise(pauses))
    assert sum(pauses) < 20
