"""The MLflow of compose.yaml lets in who has a login and a name that it knows, and nobody else."""

from __future__ import annotations

import base64
import time
import urllib.error
import urllib.request
from collections.abc import Mapping

import pytest

from pipelines.config import TrackingConfig
from pipelines.lineage.tracking import Tracker
from tests.infra.deployed import JOBS_PASSWORD, Logins

pytestmark = pytest.mark.slow

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=5"


def status(logins: Logins, path: str, **headers: str) -> int:
    request = urllib.request.Request(logins.uri + path, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def basic(login: Mapping[str, str]) -> str:
    words = f"{login['MLFLOW_TRACKING_USERNAME']}:{login['MLFLOW_TRACKING_PASSWORD']}"
    return "Basic " + base64.b64encode(words.encode()).decode()


def test_nobody_comes_in_without_a_login(logins: Logins) -> None:
    assert status(logins, SEARCH) == 401
    wrong = {**logins.jobs, "MLFLOW_TRACKING_PASSWORD": "guessed-by-somebody"}
    assert status(logins, SEARCH, Authorization=basic(wrong)) == 401
    assert status(logins, SEARCH, Authorization=basic(logins.jobs)) == 200
    assert status(logins, "/health") == 200


def test_a_name_that_is_not_its_own_is_refused_even_with_a_login(logins: Logins) -> None:
    login = basic(logins.admin)
    assert status(logins, SEARCH, Authorization=login, Host="evil.example") == 403


def test_a_login_that_is_there_gets_the_given_password(logins: Logins) -> None:
    again = logins.make_login()
    assert again.returncode == 0 and "has the given password" in again.stdout
    assert JOBS_PASSWORD not in again.stdout + again.stderr
    assert status(logins, SEARCH, Authorization=basic(logins.jobs)) == 200


def test_a_job_without_a_login_goes_on_and_its_records_wait_for_one(
    logins: Logins, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**logins.jobs, "MLFLOW_TRACKING_PASSWORD": "an-old-password"}.items():
        monkeypatch.setenv(name, value)
    config = TrackingConfig(project="old password")
    with Tracker.open(config).run("curate", "set", {"a": 1}, {}) as run:
        run.log_metrics({"clips": 3.0}, step=0)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", JOBS_PASSWORD)
    tracker, deadline_s = Tracker.open(config), time.monotonic() + 120
    while not tracker.settle():
        assert time.monotonic() < deadline_s
        time.sleep(0.5)
    (found,) = tracker.runs()
    assert (found.status, found.params) == ("FINISHED", {"a": "1"})
