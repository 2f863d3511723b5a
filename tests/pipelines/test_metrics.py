"""The catalogue of metrics, and what is recorded where no Ray is up: nothing. (What Prometheus
reads of real jobs: tests/infra/test_monitoring.py.)"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from pipelines import metrics
from tests.conftest import REPOSITORY

UNITS = ("_seconds", "_bytes")
# Counted things, and what has no unit.
COUNTED = ("_files", "_clips", "_encoded", "_written", "_steps", "_samples", "_frames", "_records")
WITHOUT_UNIT = ("_loss",)


def ids(metric: metrics._Metric) -> str:
    return metric.name


@pytest.mark.parametrize("metric", metrics.CATALOGUE, ids=ids)
def test_a_name_says_whose_it_is_and_its_unit(metric: metrics._Metric) -> None:
    assert re.fullmatch(r"i2vgen(_[a-z0-9]+)+", metric.name)
    assert metric.name.endswith("_total") == isinstance(metric, metrics.Counter)
    assert metric.name.removesuffix("_total").endswith((*UNITS, *COUNTED, *WITHOUT_UNIT))
    assert len(metric.description) > 10
    assert set(metric.labels) <= {"stage", "outcome", "verdict", "reason", "how"}


def test_names_are_there_once() -> None:
    names = [metric.name for metric in metrics.CATALOGUE]
    assert len(names) == len(set(names)) > 10


def test_without_a_ray_nothing_is_recorded_and_nothing_imported() -> None:
    code = (
        "import sys\n"
        "from pipelines import metrics\n"
        "metrics.tell_watched({'watched_now': True, 'footage_s': 3.0, 'watch_seconds': 1.0})\n"
        "metrics.tell_pack('base', 3, 1)\n"
        "metrics.tell_step('base', seconds=1, waited_s=0, clips=2, frames=8, loss=0.5)\n"
        "metrics.MLFLOW_WAITING.set(3)\n"
        "with metrics.told_to_cluster():\n"
        "    metrics.GENERATION_SECONDS.observe(2.0)\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(roots & {'ray', 'mlflow', 'torch'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_a_cluster_that_does_not_answer_stops_no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with metrics.told_to_cluster():
        done = True
    assert done


def test_a_job_that_fails_fails_as_it_would_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ZeroDivisionError), metrics.told_to_cluster():
        raise ZeroDivisionError


def test_what_cannot_be_told_ends_nothing() -> None:
    metrics.tell_dataset({})
    metrics.tell_watched({"footage_s": "long"})
