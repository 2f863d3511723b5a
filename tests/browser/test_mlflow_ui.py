"""The runs of a demo in MLflow's own pages, as `make ui` serves them."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.config import TrackingConfig
from pipelines.lineage import manifest
from pipelines.lineage.tracked.records import RunRecord
from pipelines.lineage.tracking import Tracker
from tests.browser.watched_tab import WatchedTab, play
from tests.conftest import REPOSITORY, Demo, run_job

pytestmark = pytest.mark.slow

MODEL_TRAINING = "?workflowType=machine_learning"  # the UI opens in another mode without it
READY_TIMEOUT_S = 120.0
NO_ACCOUNTS = ("/mlflow/users/current",)  # the UI asks who is there; without accounts it is a 404


@dataclass(frozen=True)
class Ui:
    """A server with the demo's runs, and a trace page attached to that of the video."""

    address: str
    runs: dict[str, RunRecord]  # of the demo by kind; the phases by name
    experiment_id: str

    def link(self, place: str) -> str:
        return f"{self.address}/#/experiments/{self.experiment_id}/{place}{MODEL_TRAINING}"

    def run_link(self, kind: str, place: str = "") -> str:
        return self.link(f"runs/{self.runs[kind].run_id}{place}")


@pytest.fixture(scope="module")
def ui(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    folder = tmp_path_factory.mktemp("ui")
    _copy_database(demo.out / "mlflow.db", folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    tracker = Tracker.open(TrackingConfig(uri))
    runs = {run.kind if run.kind != "phase" else run.name: run for run in tracker.runs()}
    ended = run_job("jobs/trace.py", "video", demo.result["video"], "--tracking.uri", uri,
                    "--html", folder / "trace.html")  # fmt: skip
    assert ended.code == 0, ended.err
    port = _free_port()
    command = [sys.executable, "jobs/ui.py", "--output", str(folder), "--port", str(port)]
    server = subprocess.Popen(
        command, cwd=REPOSITORY, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_until_ready(server, address)
        yield Ui(address, runs, tracker.runs()[0].experiment_id)
    finally:
        _stop(server)


def _copy_database(theirs: Path, ours: Path) -> None:
    """The demo's own stays as its other tests found it."""
    with closing(sqlite3.connect(theirs)) as source, closing(sqlite3.connect(ours)) as copy:
        source.backup(copy)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait_until_ready(server: subprocess.Popen[bytes], address: str) -> None:
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline_s and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=2).close()
            return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"MLflow did not answer at {address}")


def _stop(server: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does, which the job passes on to the server it started."""
    os.killpg(server.pid, signal.SIGINT)
    try:
        server.wait(timeout=30)
    finally:
        with contextlib.suppress(ProcessLookupError):  # nothing was left
            os.killpg(server.pid, signal.SIGKILL)


@pytest.fixture
def visit(tab: WatchedTab) -> WatchedTab:
    tab.excused = NO_ACCOUNTS
    return tab


def test_the_runs_of_the_demo(visit: WatchedTab, ui: Ui) -> None:
    visit.open_link(ui.link("runs"))
    page = visit.page
    for kind in ("curate", "encode", "train_base", "train_refine", "generate"):
        page.get_by_role("link", name=ui.runs[kind].name, exact=True).first.wait_for()
    digest = ui.runs["curate"].tags["dataset.digest"]
    assert page.get_by_text(f"({digest})").first.is_visible()
    visit.shoot("mlflow-runs")

    refine = page.get_by_role("link", name=ui.runs["train_refine"].name, exact=True)
    cell = page.get_by_role("gridcell").filter(has=refine)
    cell.get_by_role("button").first.click()
    for phase in ("refine phase 1: high_res", "refine phase 2: premium"):
        page.get_by_role("link", name=phase).wait_for()
    visit.shoot("mlflow-runs-nested")


def test_the_dataset_and_its_digest_are_on_the_run(visit: WatchedTab, ui: Ui, demo: Demo) -> None:
    digest = manifest.read_dataset(demo.result["dataset"]).digest
    visit.open_link(ui.run_link("curate"))
    held = visit.page.get_by_text(f"{demo.dataset.name} ({digest})")
    held.first.wait_for()
    assert held.first.is_visible()
    visit.page.get_by_text("dataset.digest").first.wait_for()
    visit.shoot("mlflow-curate")


def test_the_refinement_is_linked_to_its_base(visit: WatchedTab, ui: Ui) -> None:
    """From the run of the refinement, by its input model, to the run that trained the base."""
    visit.open_link(ui.run_link("train_refine"))
    page = visit.page
    page.get_by_text("Logged models (2)").wait_for()
    base = page.get_by_role("link", name=re.compile(r"^base step-")).first
    base.scroll_into_view_if_needed()
    rows = page.get_by_role("row").filter(has=page.get_by_role("link", name=re.compile("step-")))
    kinds = sorted(row.inner_text().split()[0] for row in rows.all())
    assert kinds == ["Input", "Output"]
    for phase in ("refine phase 1: high_res", "refine phase 2: premium"):
        assert page.get_by_role("link", name=phase).count() >= 1
    visit.shoot("mlflow-refine")
    base.click()
    page.get_by_role("link", name=ui.runs["train_base"].name, exact=True).first.wait_for()
    assert page.get_by_text(ui.runs["train_base"].run_id).first.is_visible()
    visit.shoot("mlflow-base-model")


def test_the_video_is_linked_to_both_its_models(visit: WatchedTab, ui: Ui) -> None:
    visit.open_link(ui.run_link("generate"))
    page = visit.page
    page.get_by_text("Logged models (2)").wait_for()
    for stage in ("base", "refine"):
        link = page.get_by_role("link", name=re.compile(rf"^{stage} step-")).first
        link.scroll_into_view_if_needed()
        assert link.is_visible()
    visit.shoot("mlflow-generate")


def test_a_phase_says_whose_it_is(visit: WatchedTab, ui: Ui) -> None:
    visit.open_link(ui.run_link("refine phase 1: high_res"))
    parent = visit.page.get_by_role("link", name=ui.runs["train_refine"].name, exact=True)
    parent.first.wait_for()
    assert "Parent run" in visit.page.inner_text("body")


def test_the_report_plays_among_the_artifacts(visit: WatchedTab, ui: Ui) -> None:
    visit.open_link(ui.run_link("curate", "/artifacts/report.html"))
    inside = visit.page.frame_locator("iframe#html")
    inside.get_by_role("heading", name=re.compile("clips kept from")).wait_for()
    play(inside.locator("video").first)
    visit.shoot("mlflow-report")


def test_the_trace_page_plays_among_the_artifacts(visit: WatchedTab, ui: Ui) -> None:
    visit.open_link(ui.run_link("generate", "/artifacts/lineage/trace.html"))
    inside = visit.page.frame_locator("iframe#html")
    inside.get_by_role("heading", name=re.compile("was made by")).wait_for()
    play(inside.locator("video").first)
    inside.get_by_role("heading", level=1).scroll_into_view_if_needed()
    visit.shoot("mlflow-trace-page")
