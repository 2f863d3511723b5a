"""The notebooks run on the demo's output, and are kept without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import REPOSITORY, Demo

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


def printed(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text", "") for output in outputs)


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


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


@pytest.mark.slow
def test_the_past_opens(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(run(REPOSITORY / "notebooks" / "02_lineage.ipynb", demo.out, monkeypatch))
    assert (
        "checkpoints that saw it" in text and "samples seen" in text and "base checkpoint" in text
    )
