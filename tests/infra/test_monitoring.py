"""Jobs on a real cluster, read by a real Prometheus: what they tell is what they did, and every
question of the dashboard has an answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from infra.checks.promql import expressions_of, metrics_of, read_dashboard
from pipelines import metrics
from pipelines.cluster.local import LocalCluster, local_cluster
from pipelines.config import TrackingConfig
from pipelines.lineage.tracking import Tracker
from tests.conftest import REPOSITORY, run_job
from tests.infra.deployed import Logins, Prometheus, driver, on_cluster, prometheus, write_footage

pytestmark = pytest.mark.slow

DASHBOARD = read_dashboard(REPOSITORY / "infra" / "grafana" / "dashboards" / "i2vgen-ray.json")
STEPS = 5
# Ray tells its agents every 10 s; what a short job last showed would go with its process.
AT_ONCE = {"RAY_metrics_report_interval_ms": "100"}
# What this machine cannot show: it has no GPU, and no task waits on an idle cluster.
NOT_HERE = {"ray_node_gpus_utilization", "ray_tasks"}


@dataclass(frozen=True)
class Monitored:
    """A cluster on which every kind of job has run."""

    folder: Path
    cluster: LocalCluster
    monitor: Prometheus
    results: dict[str, dict[str, Any]]
    started_s: float

    @property
    def counts(self) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads((self.folder / "set" / "dataset.json").read_text())
        return dict(manifest["counts"])

    def ever(self, metric: str, by: str = "") -> Any:
        """The highest value of each series since the start, added up."""
        return self.monitor.values(f"sum by ({by}) (max_over_time({metric}[30m]))")


@pytest.fixture(scope="module")
def ran(logins: Logins, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitored]:
    folder, started_s = tmp_path_factory.mktemp("monitored"), time.time()
    write_footage(folder / "films")
    with local_cluster(num_cpus=2, settings=AT_ONCE) as cluster:
        port = int(driver(cluster, "print(ray.nodes()[0]['MetricsExportPort'])").split()[-1])
        with prometheus(folder, port) as monitor:
            yield Monitored(folder, cluster, monitor, _jobs(cluster, logins, folder), started_s)


def _jobs(cluster: LocalCluster, logins: Logins, folder: Path) -> dict[str, dict[str, Any]]:
    of = {name: folder / name for name in ("films", "set", "latents", "base", "video.mp4")}
    image = folder / "image.png"
    _write_picture(image)
    lines = {
        "curate": ["--footage", of["films"], "--dataset", of["set"]],
        "encode": ["--dataset", of["set"], "--latents", of["latents"]],
        "train_base": ["--latents", of["latents"], "--checkpoints", of["base"]],
        "generate": ["--base", of["base"], "--refine", "none", "--image", image],
    }
    lines["train_base"] += ["--steps", str(STEPS), "--loop.sample_every", "0"]
    lines["generate"] += ["--prompt", "a square", "--out", of["video.mp4"]]
    lines["generate"] += ["--base_steps", "2", "--frames", "4"]
    return {
        job: on_cluster(cluster, logins, f"jobs/{job}.py", *arguments)
        for job, arguments in lines.items()
    }


def _write_picture(path: Path) -> None:
    from pipelines.footage import demo_prompt_image
    from pipelines.media import write_image

    write_image(path, demo_prompt_image(0)[0])


def test_what_curation_tells_is_what_dataset_json_says(ran: Monitored) -> None:
    counts = ran.counts
    assert counts["kept"] and counts["dropped"] and counts["sources_failed"]
    clips = ran.ever("ray_i2vgen_clips_total", by="verdict, reason")
    kept = clips.pop(("kept",))  # an empty label is none
    assert kept == counts["kept"]
    assert clips == {(reason, "dropped"): n for reason, n in counts["reasons"].items()}
    ok = counts["sources"] - counts["sources_failed"]
    files = {("ok",): ok, **{(reason,): n for reason, n in counts["source_reasons"].items()}}
    assert ran.ever("ray_i2vgen_files_total", by="outcome") == files
    assert ran.ever("ray_i2vgen_shards_written_total") == {(): counts["shards"]}
    assert ran.ever("ray_i2vgen_shard_written_bytes_total") == {(): counts["shard_bytes"]}


def test_the_footage_that_was_watched_and_the_time_of_each_stage(ran: Monitored) -> None:
    sources = pq.read_table(ran.folder / "set" / "sources.parquet").to_pylist()
    watched_s = [row["duration_s"] for row in sources if row["status"] == "ok"]
    (told_s,) = ran.ever("ray_i2vgen_footage_watched_seconds_total").values()
    assert told_s == pytest.approx(sum(watched_s))
    stages = ran.ever("ray_i2vgen_stage_seconds_count", by="stage")
    assert stages[("watch",)] == ran.counts["sources"]  # the broken one, too, was looked at
    assert {("caption",), ("score",), ("cut",)} < set(stages)
    seconds = ran.ever("ray_i2vgen_stage_worker_seconds_total", by="stage")
    assert set(seconds) == set(stages) and all(s > 0 for s in seconds.values())


def test_latents_training_and_generation_tell_what_they_did(ran: Monitored) -> None:
    encoded = ran.ever("ray_i2vgen_clips_encoded_total", by="stage, how")
    assert encoded == {("made", "base"): ran.results["encode"]["clips"]}
    trained = ran.results["train_base"]
    ((labels, steps),) = ran.ever("ray_i2vgen_train_steps_total", by="stage").items()
    assert labels == ("base",)
    samples = ran.ever("ray_i2vgen_train_samples_total")
    assert ran.ever("ray_i2vgen_train_step_seconds_count") == {(): steps}
    if steps == STEPS:
        assert samples == {(): trained["samples_seen"]}
        (loss,) = ran.monitor.values("last_over_time(ray_i2vgen_train_loss[30m])").values()
        assert loss == pytest.approx(trained["loss"], rel=1e-4)
    else:  # a worker that ends takes with it what it told in its last moment
        assert steps == STEPS - 1 and steps <= samples[()] < trained["samples_seen"]
    assert ran.ever("ray_i2vgen_generation_seconds_count") == {(): 1}
    seconds = ran.results["generate"]["seconds"]
    for end, count in ran.ever("ray_i2vgen_generation_seconds_bucket", by="le").items():
        if abs(float(end[0]) - seconds) > 0.1:  # what a job says is rounded
            assert count == (float(end[0]) > seconds)


def test_the_jobs_are_in_the_mlflow_that_asks_for_logins(
    ran: Monitored, logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = run_job("jobs/replay.py", **logins.jobs)  # what a slow server left waiting
    assert sent.code == 0, sent.err
    for name, value in logins.jobs.items():
        monkeypatch.setenv(name, value)
    ended = {run.name: run.status for run in Tracker.open(TrackingConfig()).runs()}
    names = {"set", "encode base", "train base", "generate video.mp4"}
    assert {name: ended.get(name) for name in names} == dict.fromkeys(names, "FINISHED")


def test_everything_in_the_catalogue_was_told(ran: Monitored) -> None:
    names = ran.monitor.names()
    for metric in metrics.CATALOGUE:
        exported = f"ray_{metric.name}"
        if isinstance(metric, metrics.Histogram):
            exported += "_bucket"
        assert exported in names


def test_every_metric_of_the_dashboard_is_one_that_is_exported(ran: Monitored) -> None:
    names = ran.monitor.names()
    asked = {name for _, text in expressions_of(DASHBOARD) for name in metrics_of(text)}
    assert asked - names <= NOT_HERE
    assert asked - names <= _named_by_ray()
    ours = {f"ray_{metric.name}" for metric in metrics.CATALOGUE}
    assert all(any(name.startswith(one) for name in asked) for one in ours)


def _named_by_ray() -> set[str]:
    """By the dashboards that Ray ships."""
    from ray.dashboard.modules.metrics.dashboards import default_dashboard_panels as panels

    text = Path(panels.__file__).read_text()
    return {name for name in NOT_HERE if name in text}


@pytest.mark.parametrize(("title", "expression"), list(expressions_of(DASHBOARD)))
def test_every_panel_has_an_answer(ran: Monitored, title: str, expression: str) -> None:
    span = {"start": f"{ran.started_s:.0f}", "end": f"{time.time():.0f}", "step": "1"}
    found = ran.monitor.ask("query_range", query=expression, **span)["result"]
    assert found or metrics_of(expression) & NOT_HERE, title


def test_a_metric_that_cannot_be_recorded_ends_nothing(ran: Monitored) -> None:
    code = (
        "from pipelines import metrics\n"
        "metrics.FILES.add(1, no_such_label='x')\n"
        "metrics.TRAIN_LOSS.set(float('nan'), stage='base')\n"
        "metrics.CLIPS.add(-1, verdict='kept', reason='')\n"
        "metrics.STAGE_SECONDS.observe('many', stage='watch')\n"
        "print('went on')"
    )
    assert driver(ran.cluster, code).split("\n")[-2] == "went on"
