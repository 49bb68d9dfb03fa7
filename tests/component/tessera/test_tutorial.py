"""The notebooks are executed, show pictures, and run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[3] / "docs" / "tutorial"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def outputs(notebook: Any) -> list[Any]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_as_it_ran(path):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, 4)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
    assert [output for output in outputs(notebook) if output.output_type == "error"] == []
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_again(path):
    nbformat, client = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(path, 4)
    client.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=str(FOLDER))
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
