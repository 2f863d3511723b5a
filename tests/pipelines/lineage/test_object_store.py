"""The same questions and the same takedown where everything lies in an object store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config import RequestError, TrackingConfig
from pipelines.lineage.answers import Question, answer
from pipelines.lineage.catalog import build
from pipelines.lineage.manifest import read_dataset
from pipelines.lineage.tracking import Tracker
from pipelines.lineage.wholeness import check_dataset
from pipelines.storage import Store
from tests.conftest import run_job
from tests.pipelines.lineage import small_world
from tests.pipelines.lineage.conftest import Past, past
from tests.servers.object_store import BUCKET, ObjectStore, object_store

__all__ = ["past"]

REQUEST = re.compile(r'"([A-Z]+) /([^ ]*) HTTP/1\.1" 2\d\d')


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ObjectStore, Path]]:
    """The store, and the log of its requests."""
    folder = tmp_path_factory.mktemp("objects")
    with object_store(folder) as store:
        yield store, folder / "objects.log"


@dataclasses.dataclass(frozen=True)
class There:
    """What `past` made, in the object store under `uri`; `here` is the original."""

    uri: str
    here: Past
    store: ObjectStore
    log: Path

    def place(self, *names: str) -> str:
        return "/".join((self.uri, *names))

    def as_here(self, value: Any) -> Any:
        """An answer, with the store's URIs as if they were here."""
        return json.loads(json.dumps(value).replace(self.uri, str(self.here.root)))

    def requests(self) -> list[tuple[str, str]]:
        """(method, name below `uri`) of every request for an object so far that was met."""
        prefix = self.uri.removeprefix("s3://") + "/"
        asked = [(m, urllib.parse.unquote(p)) for m, p in REQUEST.findall(self.log.read_text())]
        return [(m, path.removeprefix(prefix)) for m, path in asked if path.startswith(prefix)]


@pytest.fixture
def there(
    past: Past, server: tuple[ObjectStore, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[There]:
    import s3fs

    store, log = server
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    # A space, brackets: what a URL or a pattern would take for something else.
    prefix = f"{hashlib.sha256(str(past.root).encode()).hexdigest()[:8]}/{past.root.name}"
    moved = There(f"s3://{BUCKET}/{prefix}", past, store, log)
    client = store.client()
    for path in sorted(p for p in past.root.rglob("*") if p.is_file()):
        data = path.read_bytes()
        if path.suffix == ".json":
            data = data.replace(str(past.root).encode(), moved.uri.encode())
        name = path.relative_to(past.root).as_posix()
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=data)
    s3fs.S3FileSystem.clear_instance_cache()  # they remember the endpoint of other tests
    yield moved
    s3fs.S3FileSystem.clear_instance_cache()


ALPHA = small_world.source_id("alpha.mp4")
CLIP = small_world.make_clip("alpha.mp4", 0).clip_id


@pytest.mark.parametrize(
    ("kind", "of"),
    [
        ("source", ALPHA),
        ("source", "beta film.mp4"),
        ("clip", CLIP),
        ("dataset", "{}/dataset-a"),
        ("checkpoint", "{}/base-x/step-00000020"),
        ("checkpoint", "{}/base-x"),
        ("checkpoint", "{}/refine-x"),
        ("video", "{}/video-x.mp4"),
    ],
)
def test_an_answer_is_the_same_but_for_the_places(there: There, kind: str, of: str) -> None:
    root = str(there.here.root)
    here = answer(Question(kind, [of.format(root)], under=[root]))
    found = answer(Question(kind, [of.format(there.uri)], under=[there.uri]))
    assert there.as_here(found.report) == json.loads(json.dumps(here.report))
    assert [(e.kind, there.as_here(e.uri), e.digest) for e in found.catalog.entries] == [
        (e.kind, e.uri, e.digest) for e in here.catalog.entries
    ]


def test_the_job_answers_there_as_here(there: There) -> None:
    asked = ("jobs/trace.py", "source", there.here.root / "footage" / "alpha.mp4", "--json")
    here = run_job(*asked, "--under", there.here.root)
    ended = run_job(*asked, "--under", there.uri, timeout_s=300, **there.store.environment)
    assert ended.code == 0, ended.err
    assert there.as_here(ended.result) == here.result
    (source,) = ended.result["sources"]
    assert [row["uri"] for row in source["checkpoints"]] == [
        there.place("base-x", "step-00000010"),
        there.place("base-x", "step-00000020"),
        there.place("refine-x", "step-00000010"),  # through its base
    ]


def test_what_is_not_there_is_said_in_one_line(there: There) -> None:
    for kind, of in (("dataset", "no-set"), ("checkpoint", "no-run"), ("video", "no.mp4")):
        with pytest.raises(RequestError, match=f"{of}: n") as caught:
            answer(Question(kind, [there.place(of)], under=[there.uri]))
        assert "\n" not in str(caught.value)
    with pytest.raises(RequestError, match="no such folder"):
        build([there.place("nowhere")])


def test_to_look_around_reads_what_may_name_an_output_and_nothing_else(there: There) -> None:
    """No request for each film of the footage: the listing says that no record is beside it."""
    beside = Store.open(there.uri)
    beside.write_json("_work/attempts/dataset.json", {"digest": "of an attempt"})
    beside.write_json("base-x/step-00000020/unet/checkpoint.json", {"digest": "of another"})
    before = Counter(there.requests())
    build([there.uri])
    asked = {name for method, name in Counter(there.requests()) - before}
    naming = {"dataset-a/dataset.json", "latents-a/latents.json", "video-x.json"}
    steps = ("base-x/step-00000010", "base-x/step-00000020", "refine-x/step-00000010")
    naming |= {f"{step}/checkpoint.json" for step in steps}
    assert asked == naming | {"footage/alpha.json"}  # the one film with JSON beside it


def test_what_lies_beside_is_found_without_being_named(there: There) -> None:
    """As in a folder: the neighbours of what was asked about, and no more than two folders down."""
    beside = Store.open(there.uri)
    beside.write_json("far/too/deep/down/dataset.json", {"digest": "of another"})
    here = build((), near=[str(there.here.root / "dataset-a")])
    found = build((), near=[there.place("dataset-a")])
    assert [(e.kind, there.as_here(e.uri)) for e in found.entries] == [
        (e.kind, e.uri) for e in here.entries
    ]
    assert {e.kind for e in found.entries} == {"dataset", "latents", "checkpoint", "video"}


def test_what_another_process_did_is_seen_at_once(there: There) -> None:
    """Workers on other machines commit here, and a takedown elsewhere may remove."""
    store, client = Store.open(there.place("work")), there.store.client()
    key = f"{store.uri.removeprefix(f's3://{BUCKET}/')}/commits/{{}}"
    for name in ("1.json", "2.json", "3.json"):
        assert not store.exists(f"commits/{name}")
        client.put_object(Bucket=BUCKET, Key=key.format(name), Body=b"{}")
        assert store.exists(f"commits/{name}")
        assert f"commits/{name}" in store.list_files()
    client.delete_object(Bucket=BUCKET, Key=key.format("2.json"))
    assert not store.exists("commits/2.json")
    assert store.list_files("commits") == ["commits/1.json", "commits/3.json"]


# --- takedown ----------------------------------------------------------------------------------


def take_down(there: There, tmp_path: Path, name: str = "dataset-b") -> dict[str, Any]:
    """The job, there, in a project whose runs are recorded."""
    listed = tmp_path / "remove.txt"
    listed.write_text(f"{ALPHA}\n")
    ended = run_job(
        "jobs/takedown.py",
        *("--dataset", there.place("dataset-a"), "--list", listed, "--out", there.place(name)),
        *("--tracking.uri", f"sqlite:///{tmp_path}/mlflow.db"),
        timeout_s=300,
        **there.store.environment,
    )
    assert ended.code == 0, ended.err
    return ended.result


def contents(uri: str) -> dict[str, bytes]:
    store = Store.open(uri)
    return {name: store.read_bytes(name) for name in store.list_files()}


def test_a_takedown_there_gives_the_files_that_it_gives_here(there: There, tmp_path: Path) -> None:
    tracker = Tracker.open(TrackingConfig(f"sqlite:///{tmp_path}/mlflow.db"))
    with tracker.run("train_refine", "refine", {}, {}) as training:
        for name, made in (("base", there.here.base[1]), ("refine", there.here.refine)):
            uri = made["uri"].replace(str(there.here.root), there.uri)
            training.log_output_model(name, uri, made["digest"], 20, {})
    before = Counter(there.requests())
    done = take_down(there, tmp_path)
    asked = Counter(there.requests()) - before

    listed, out = tmp_path / "remove.txt", there.here.root / "dataset-b"
    here = run_job(
        "jobs/takedown.py",
        *("--dataset", there.here.dataset["uri"], "--list", listed, "--out", out),
        *("--tracking.enabled", "false"),
    ).result
    told = ("removed", "shards_rewritten", "shards_unchanged", "checkpoints", "last_clean")
    for key in (*told, "digest", "parent_digest", "clips", "kept", "dropped"):
        assert there.as_here(done[key]) == here[key], key
    assert done["checkpoints"] and done["shards_rewritten"] and done["shards_unchanged"]
    assert done["runs"] == [training.run_id]
    assert contents(there.place("dataset-b")) == contents(str(out))
    assert check_dataset(there.place("dataset-b")) == []

    shards = {row["shard"]: row for row in read_dataset(str(out)).shards.to_pylist()}
    original = read_dataset(there.here.dataset["uri"]).shards.to_pylist()
    same = {row["shard"] for row in original if shards.get(row["shard"]) == row}
    read = {n.rpartition("/")[2] for m, n in asked if m == "GET" and "/shards/" in n}
    assert len(same) == done["shards_unchanged"] and not read & same
    written = {n.rpartition("/")[2] for m, n in asked if m in ("PUT", "POST") and "/shards/" in n}
    assert written == set(shards)  # those that are the same: by the store, from its own copy

    pairs = [[f"{root}/dataset-a", f"{root}/dataset-b"] for root in (there.uri, there.here.root)]
    changes = [answer(Question("dataset", pair)).report for pair in pairs]
    assert there.as_here(changes[0]) == json.loads(json.dumps(changes[1]))


def test_an_interrupted_takedown_is_run_again(there: There, tmp_path: Path) -> None:
    whole = take_down(there, tmp_path)
    out = Store.open(there.place("dataset-c"))
    out.write_json("_work/takedown.json", {"parent_digest": "x", "request": "y"})
    out.write_bytes("shards/shard-00000.tar", b"half")
    out.write_bytes("shards/shard-00099.tar", b"of another request")
    out.write_bytes("clips.parquet", b"half")
    again = take_down(there, tmp_path, "dataset-c")
    assert again["digest"] == whole["digest"]
    assert contents(out.uri) == contents(there.place("dataset-b"))


def test_a_place_that_holds_something_else_stays_as_it_is(there: There, tmp_path: Path) -> None:
    listed = tmp_path / "remove.txt"
    listed.write_text(f"{ALPHA}\n")
    before = contents(there.uri)
    for name, words in (("footage", "not empty"), ("dataset-a", "is the dataset itself")):
        ended = run_job(
            "jobs/takedown.py",
            *("--dataset", there.place("dataset-a"), "--list", listed, "--out", there.place(name)),
            *("--tracking.enabled", "false"),
            timeout_s=300,
            **there.store.environment,
        )
        assert ended.code == 2 and words in ended.err
    assert contents(there.uri) == before


def test_damage_there_is_found_as_here(there: There) -> None:
    store = Store.open(there.place("dataset-a"))
    assert check_dataset(store.uri) == []
    data = store.read_bytes("shards/shard-00000.tar")
    store.write_bytes("shards/shard-00000.tar", data[:-1] + b"x")
    store.write_bytes("shards/shard-00001.tar", data[:5120])
    store.remove("shards/shard-00002.tar")
    store.write_bytes("shards/shard-00003.tar", data)
    here = Store.open(there.here.dataset["uri"])
    for name in ("shard-00000.tar", "shard-00001.tar", "shard-00003.tar"):
        here.write_bytes(f"shards/{name}", store.read_bytes(f"shards/{name}"))
    here.remove("shards/shard-00002.tar")
    assert check_dataset(store.uri) == check_dataset(here.uri)
    assert len(check_dataset(store.uri)) >= 4
