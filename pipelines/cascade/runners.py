"""Two ways to run a job of the cascade: as a child process, or through `ray job submit`.

Both run the same command line, stream its words to a log, show its latest progress line, and
hand back the JSON object it ends with.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.config import RequestError

REPOSITORY = Path(__file__).resolve().parents[2]
# Uploaded with each submitted job; data and environments stay behind (100 MiB is Ray's limit).
UPLOAD_EXCLUDES = (".git", ".venv", "outputs", ".mypy_cache", ".ruff_cache", ".pytest_cache")
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
OF_RAY_ITSELF = re.compile(
    r"^\S+ \S+\t?(INFO|WARNING|SUCC|ERR) |^Running entrypoint|^\(\S+ pid=|^\[\d{4}-"
)

Watch = Callable[[str], None]


class JobFailed(Exception):
    """A job ended with an error that was not the request's fault; carries the end of its log."""


@dataclass(frozen=True)
class ChildRunner:
    """Runs the job as a child process of this one."""

    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, command: Sequence[str], log: Path, watch: Watch) -> dict[str, Any]:
        line = [sys.executable, *command[1:]]
        return _run_streamed(line, {**os.environ, **self.environment}, log, watch)


@dataclass(frozen=True)
class SubmitRunner:
    """Runs the job through `ray job submit` against a cluster's job server."""

    jobs_url: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, command: Sequence[str], log: Path, watch: Watch) -> dict[str, Any]:
        runtime_env = {"working_dir": str(REPOSITORY), "excludes": list(UPLOAD_EXCLUDES)}
        submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit"]
        submit += ["--address", self.jobs_url, "--runtime-env-json", json.dumps(runtime_env)]
        # Ray quotes what follows `--` for its shell: a prompt of several words stays one.
        return _run_streamed(
            [*submit, "--", *command], {**os.environ, **self.environment}, log, watch
        )


def _run_streamed(
    command: Sequence[str], environment: Mapping[str, str], log: Path, watch: Watch
) -> dict[str, Any]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        open(log, "w", encoding="utf-8") as record,
        subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        ) as process,
    ):
        result: dict[str, Any] = {}
        lock = threading.Lock()

        def follow(stream: Any) -> None:
            for text in stream:
                line = ANSI.sub("", text).rstrip()
                with lock:
                    record.write(line + "\n")
                    record.flush()
                    if line.startswith("{") and (found := _json_object(line)) is not None:
                        result.clear()
                        result.update(found)
                    elif line and not OF_RAY_ITSELF.match(line):
                        watch(line)

        followers = [
            threading.Thread(target=follow, args=(stream,), daemon=True)
            for stream in (process.stdout, process.stderr)
        ]
        for follower in followers:
            follower.start()
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            raise
        for follower in followers:
            follower.join()
    if code != 0 or not result:
        raise _failure(code, log)
    return result


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _failure(code: int, log: Path) -> Exception:
    """The child's own one-line refusal where it gave one (a submitted job always exits with 1)."""
    lines = log.read_text(errors="replace").splitlines()
    for line in reversed(lines):
        if line.startswith("error: "):
            return RequestError(line.removeprefix("error: "))
    tail = "\n".join(f"  | {line}" for line in lines[-15:])
    return JobFailed(f"exit code {code}; the end of {log}:\n{tail}")
