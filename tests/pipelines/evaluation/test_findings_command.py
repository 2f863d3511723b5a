"""The command that makes the findings runs from nothing to a record, at a tiny scale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.evaluation.findings import NOT_RUN, check_findings
from tests.conftest import REPOSITORY, run_job

COMMAND = "tests/benchmarks/findings.py"
PARTS = ("data", "shared", "full", "refine", "evaluate_full", "evaluate_cascade")


@pytest.mark.slow
def test_from_footage_to_a_record_that_says_what_was_not_run(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    request = (COMMAND, "--work", work, "--out", out, "--scale", "tiny", "--threads", "2", "--only")
    for parts in (PARTS, ()):
        ended = run_job(*request, *parts)
        assert ended.code == 0, ended.err[-3000:]
    record = json.loads((out / "findings.json").read_text())
    check_findings(record)
    verdicts = {entry["name"]: entry["verdict"] for entry in record["findings"]}
    assert verdicts["cascade_semantics"] == verdicts["content_identity"] == NOT_RUN
    assert verdicts["refinement_low_kept"] != NOT_RUN != verdicts["refinement_middle"]
    assert [entry["verdict"] != NOT_RUN for entry in record["targets"]] == [True, False, True]
    assert {job["made"] for job in record["made"]["jobs"]} >= {"shared", "full", "refine"}
    assert str(tmp_path) not in json.dumps(record) and str(REPOSITORY) not in json.dumps(record)
    assert all((out / picture["file"]).is_file() for picture in record["pictures"]["files"])
    again = run_job(*request, *PARTS)
    assert again.code == 0 and "training" not in again.err, "what is there is not made again"
