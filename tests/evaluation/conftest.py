import pytest

from cancernet.evaluation.report import write_report
from tests.evaluation.pages import Page
from tests.evaluation.run_folders import draw_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_run(tmp_path_factory.mktemp("synthetic") / "run", cases=12, side=7, outside=2)


@pytest.fixture(scope="module")
def page(folder):
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.fixture
def copy(folder, tmp_path):
    """A copy of the synthetic run that a test may break."""
    target = tmp_path / "run"
    target.mkdir()
    for name in ("metrics.json", "predictions.parquet", "predictions.csv", "pictures.npz", "config.yaml"):
        (target / name).write_bytes((folder / name).read_bytes())
    return target
