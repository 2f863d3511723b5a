"""Secrets planted in every place a user may put one: none is written, said or listed anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.footage import write_world
from tests.conftest import REPOSITORY, Ended, run_job

pytestmark = pytest.mark.slow

SECRET = "pl4nted-S3cret"
#: The environment is where secrets belong: children of the job may have them, outputs may not.
PLANTED = {
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": SECRET,
    "MLFLOW_TRACKING_PASSWORD": SECRET,
    "MLFLOW_TRACKING_USERNAME": SECRET,
    "MLFLOW_TRACKING_TOKEN": SECRET,
    "OPENAI_API_KEY": SECRET,
    "HF_TOKEN": SECRET,
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": SECRET * 3,
    "SOME_PASSWORD": SECRET,
}


#: Where a Ray that a job starts for itself leaves what it logs.
RAY_SESSIONS = Path("/tmp/ray")


def files_with(folder: Path, word: bytes) -> list[str]:
    """Names of the files below the folder that hold the word in their bytes or their names."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and (word in path.read_bytes() or word in os.fsencode(path.name)):
            found.append(str(path.relative_to(folder)))
    return found


class Watched(threading.Thread):
    """Looks at the arguments of all processes of this machine while a job runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[str] = set()
        self.looks = 0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.3):
            self.looks += 1
            for process in psutil.process_iter(["cmdline"]):
                line = " ".join(process.info["cmdline"] or ())
                if SECRET in line:
                    self.seen.add(line)


@pytest.fixture
def watched() -> Iterator[Watched]:
    thread = Watched()
    thread.start()
    yield thread
    thread.done.set()
    thread.join()


def assert_unsaid(ended: Ended) -> None:
    assert SECRET not in ended.out and SECRET not in ended.err


def test_a_whole_curation_and_its_trace_tell_no_secret(tmp_path: Path, watched: Watched) -> None:
    write_world(tmp_path / "footage", preset="small", real_clips=False, broken=False)
    kept = tmp_path / "kept"
    environment = {**PLANTED, "I2VGEN_HOME": str(kept / "home"), "TMPDIR": str(tmp_path / "t")}
    (tmp_path / "t").mkdir()
    before = set(RAY_SESSIONS.glob("session_2*"))
    ended = run_job(
        "jobs/curate.py",
        *("--footage", tmp_path / "footage", "--dataset", kept / "dataset"),
        **environment,
    )
    assert ended.code == 0, ended.err[-3000:]
    traced = run_job(
        "jobs/trace.py",
        *("dataset", kept / "dataset", "--under", kept, "--html", kept / "page.html"),
        **environment,
    )
    assert traced.code == 0, traced.err[-3000:]
    watched.done.set()
    for one in (ended, traced):
        assert_unsaid(one)
    assert (kept / "home" / "mlflow.db").is_file() and (kept / "dataset" / "dataset.json").is_file()
    assert files_with(kept, SECRET.encode()) == []
    logs = [session / "logs" for session in set(RAY_SESSIONS.glob("session_2*")) - before]
    assert any(path for folder in logs for path in folder.glob("raylet*"))
    assert [name for folder in logs for name in files_with(folder, SECRET.encode())] == []
    assert watched.looks > 3 and watched.seen == set()


REFUSED = {
    "curate": ("--footage", "{footage}", "--dataset", f"s3://key:{SECRET}@bucket/set"),
    "encode": (
        *("--dataset", f"https://host/set?X-Amz-Signature={SECRET}"),
        *("--latents", "{out}", "--stage", "base"),
    ),
    "train_base": ("--latents", f"gs://user:{SECRET}@b/l", "--checkpoints", "{out}"),
    "generate": (
        *("--base", f"s3://k:{SECRET}@b/c", "--refine", "none", "--image", "{out}/a.png"),
        *("--prompt", "x", "--out", "{out}/v.mp4"),
    ),
    "takedown": ("--dataset", "{out}", "--list", f"https://h/l?token={SECRET}", "--out", "{out}2"),
    "trace": ("dataset", f"s3://k:{SECRET}@b/d"),
    "ui": ("--uri", f"postgresql://user:{SECRET}@db/mlflow"),
}


@pytest.mark.parametrize("job", REFUSED)
def test_an_address_with_a_secret_is_refused_without_repeating_it(job: str, tmp_path: Path) -> None:
    (tmp_path / "footage").mkdir()
    places = {"footage": str(tmp_path / "footage"), "out": str(tmp_path / "out")}
    arguments = [word.format(**places) for word in REFUSED[job]]
    home = {"I2VGEN_HOME": str(tmp_path / "home")}
    ended = run_job(f"jobs/{job}.py", *arguments, **home)
    assert_refused(ended, tmp_path)


def test_a_secret_in_a_file_of_settings_or_a_tracking_address_is_refused(tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"tracking:\n  uri: https://user:{SECRET}@mlflow\n")
    given = ("--footage", tmp_path, "--dataset", tmp_path / "out", "--dry-run")
    assert_refused(run_job("jobs/curate.py", *given, "--config", settings), tmp_path / "out")
    uri = f"https://user:{SECRET}@mlflow"
    ended = run_job("jobs/curate.py", *given[:-1], MLFLOW_TRACKING_URI=uri)
    assert_refused(ended, tmp_path / "out")


def assert_refused(ended: Ended, place: Path) -> None:
    assert ended.code == 2, (ended.code, ended.err[-2000:])
    assert_unsaid(ended)
    assert "Traceback" not in ended.err
    assert not place.exists() or files_with(place, SECRET.encode()) == []


def test_last_words_and_log_lines_of_a_job_tell_none() -> None:
    program = (
        "import logging\n"
        "from pipelines import job\n"
        "def main(argv):\n"
        f"    logging.getLogger('botocore').error('PUT https://b/x?X-Amz-Signature={SECRET}')\n"
        f"    raise ValueError('no answer from s3://k:{SECRET}@b/x')\n"
        "job.run(main)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert ended.returncode == 1
    assert "PUT https://b/x?X-Amz-Signature=***" in ended.stderr

    assert "ValueError: no answer from s3://***@b/x" in ended.stderr
    assert SECRET not in ended.stderr
