"""A real film is taken out of the demo's dataset, and what had seen it is named and marked."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pyarrow.compute as pc
import pytest

from pipelines.config import TrackingConfig
from pipelines.lineage.manifest import read_dataset
from pipelines.lineage.tracking import Tracker
from pipelines.lineage.wholeness import check_dataset
from pipelines.storage import sha256_of_file
from tests.conftest import Demo, run_job

pytestmark = pytest.mark.slow
FILM = "real/bikes.mp4"


@pytest.fixture
def tracking_uri(demo: Demo, tmp_path: Path) -> str:
    """The demo's runs, copied: other tests look at them too."""
    shutil.copyfile(demo.out / "mlflow.db", tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"


def test_a_film_is_taken_out_of_the_demo(demo: Demo, tracking_uri: str, tmp_path: Path) -> None:
    listed, out = tmp_path / "remove.txt", tmp_path / "without"
    listed.write_text(f"{demo.footage / FILM}\n")
    ended = run_job(
        "jobs/takedown.py",
        *("--dataset", demo.dataset, "--list", listed, "--out", out),
        *("--tracking.uri", tracking_uri),
    )
    assert ended.code == 0, ended.err
    before, after = read_dataset(str(demo.dataset)), read_dataset(str(out))
    film = sha256_of_file(demo.footage / FILM)[:32]
    of_film = pc.equal(before.clips["source_id"], film)

    assert check_dataset(str(out)) == []
    mine = after.clips.filter(pc.equal(after.clips["source_id"], film))
    assert set(mine["verdict"].to_pylist()) == {"dropped"}
    assert mine["caption"].null_count == mine["embedding"].null_count == mine.num_rows
    assert after.clips.filter(pc.invert(of_film)).equals(before.clips.filter(pc.invert(of_film)))
    assert ended.result["removed"] == before.manifest["counts"]["kept"] - ended.result["kept"] > 0

    trained = {demo.result["base"], demo.result["refine"]}
    assert trained <= set(ended.result["checkpoints"])
    marked = [r for r in Tracker.open(TrackingConfig(tracking_uri)).runs()
              if r.tags.get("takedown.digest") == after.digest]  # fmt: skip
    assert {run.kind for run in marked} >= {"train_base", "train_refine"}

    report = (out / "report.html").read_text()
    assert f"{ended.result['kept']} clips kept" in re.sub(r"<[^>]+>", "", report)
    assert "<video" in report and "taken_down" in report
    assert not (Path(before.uri) / "tombstones.parquet").exists()


def test_the_demo_ends_with_a_page_of_its_video_beside_the_run(demo: Demo) -> None:
    page = Path(demo.result["lineage"])
    assert "<svg" in page.read_text() and "<video" in page.read_text()
    attached = list((demo.out / "mlflow-artifacts").rglob(f"lineage/{page.name}"))
    assert [path.read_bytes() for path in attached] == [page.read_bytes()]


def test_every_checkpoint_has_a_card_that_counts_what_it_saw(demo: Demo) -> None:
    for stage in ("base", "refine"):
        folder = Path(demo.result[stage])
        card = (folder / "README.md").read_text()
        trace = run_job("jobs/trace.py", "checkpoint", folder, "--under", demo.out, "--json").result
        seen = trace["stages"][0]
        assert f"| samples seen | {seen['samples_seen']} |" in card
        assert f"| different clips seen | {seen['clips_seen']} |" in card
        assert f"| of different sources | {seen['sources_seen']} |" in card
        files = json.loads((folder / "checkpoint.json").read_text())["files"]
        assert files["README.md"] == sha256_of_file(folder / "README.md")
