"""The notebooks run on the demo's output or on committed results, and are kept without outputs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from pipelines.evaluation.findings import FINDINGS, check_findings
from pipelines.evaluation.findings_shown import sentence
from pipelines.lineage.manifest import read_dataset
from tests.conftest import REPOSITORY, Demo

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
FINDINGS_NOTEBOOK = REPOSITORY / "notebooks" / "03_findings.ipynb"
RECORD = REPOSITORY / "notebooks" / "findings" / "findings.json"


def printed(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text", "") for output in outputs)


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def displayed(notebook: nbformat.NotebookNode, mime: str) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["data"][mime] for output in outputs if mime in output.get("data", {})]


def run(path: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    monkeypatch.setenv("I2VGEN_OUTPUT", str(output))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=180, kernel_name="python3")
    client.execute(cwd=str(REPOSITORY / "notebooks"))
    return notebook


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped_and_cells_have_stable_ids(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
    assert path.read_text() == nbformat.writes(notebook) + "\n"


@pytest.mark.slow
def test_the_dataset_opens(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = run(REPOSITORY / "notebooks" / "01_dataset.ipynb", demo.out, monkeypatch)
    text = printed(notebook)
    assert pictures(notebook) == 3
    assert "problems: none" in text and "'kept'" in text
    digest = read_dataset(str(demo.dataset)).digest
    assert digest in text and "consent" in text
    assert "Caption matches picture" in text and "passed" in text and "failed" in text


@pytest.mark.slow
def test_the_past_opens(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = run(REPOSITORY / "notebooks" / "02_lineage.ipynb", demo.out, monkeypatch)
    text = printed(notebook)
    assert (
        "checkpoints that saw it" in text and "samples seen" in text and "base checkpoint" in text
    )
    assert "problems: none" in text and re.search(r"removed: [1-9]", text)
    assert "added: 0" in text and "changed: 0" in text
    (page,) = [shown for shown in displayed(notebook, "text/html") if "<iframe" in shown]
    assert "video/mp4;base64" in page and "From footage to videos" in page


def test_the_committed_verdicts_follow_from_their_numbers() -> None:
    record = json.loads(RECORD.read_text())
    check_findings(record)
    for picture in record["pictures"]["files"]:
        assert (RECORD.parent / picture["file"]).is_file()


@pytest.mark.slow
def test_every_finding_is_shown_with_its_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = run(FINDINGS_NOTEBOOK, REPOSITORY, monkeypatch)
    record, text = json.loads(RECORD.read_text()), printed(notebook)
    assert len(record["findings"]) == len(FINDINGS)
    for entry in record["findings"]:
        assert sentence(entry) in text
    topics = {finding.topic for finding in FINDINGS}
    assert pictures(notebook) == len(topics) + len(record["pictures"]["files"])


@pytest.mark.slow
def test_a_record_without_a_finding_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pipelines").symlink_to(REPOSITORY / "pipelines")
    (tmp_path / "notebooks").mkdir()
    shutil.copytree(RECORD.parent, tmp_path / "notebooks" / "findings")
    record = json.loads(RECORD.read_text())
    lost = record["findings"].pop(0)["name"]
    (tmp_path / "notebooks" / "findings" / "findings.json").write_text(json.dumps(record))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    notebook = nbformat.read(FINDINGS_NOTEBOOK, as_version=4)
    with pytest.raises(CellExecutionError, match=lost):
        NotebookClient(notebook, timeout=180, kernel_name="python3").execute(cwd=str(tmp_path))
