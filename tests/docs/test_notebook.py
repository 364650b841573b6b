"""The notebook for Kaggle runs from its first cell to its last, on a small archive that lies in a folder as there."""

import json
import re
import zipfile

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.pages import ROOT, fences

NOTEBOOK = ROOT / "docs" / "kaggle.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_kept_without_outputs(notebook):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in cells] == [[]] * len(cells)
    assert {cell.execution_count for cell in cells} == {None}


def test_the_notebook_trains_by_the_recipe_that_the_page_on_training_writes_out(notebook):
    (example,) = fences(ROOT / "docs" / "training.md", "python")
    (recipe,) = re.findall(r"^task = .*?^\)$", example, re.DOTALL | re.MULTILINE)
    assert any(recipe in cell.source for cell in notebook.cells)
    (epochs,) = re.findall(r"max_epochs=(\d+)", example)
    assert any(f'"CANCERNET_EPOCHS", "{epochs}"' in cell.source for cell in notebook.cells)


def test_the_notebook_runs_and_shows_the_report(notebook, archive, tmp_path, monkeypatch):
    mount, work = tmp_path / "input" / "breast-histopathology-images", tmp_path / "working"
    work.mkdir()
    with zipfile.ZipFile(archive) as file:
        file.extractall(mount)
    before = sorted(mount.rglob("*"))
    settings = {"ROOT": str(mount), "WORK": str(work), "EPOCHS": "1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"CANCERNET_{name}", value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute(cwd=work)
    shown = [output.data for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert any("Maps of the cases" in data.get("text/html", "") for data in shown)
    metrics = json.loads((work / "lightning_logs" / "version_0" / "metrics.json").read_text())
    assert metrics["data"] == mount.name
    assert sorted(mount.rglob("*")) == before  # only read, as Kaggle's mount can be
