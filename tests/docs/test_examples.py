"""The Python examples of docs/ run as they stand; those of README do in `tests/test_package.py`, from the wheel."""

from typing import Any

import pytest
import yaml
from PIL import Image

from tests.docs.pages import PAGES, ROOT, fences
from tests.slides.drawing import draw_tissue, write_checkpoint, write_pyramid

CHECKPOINT = "lightning_logs/version_0/checkpoints/last.ckpt"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with what the examples name: a checkpoint, two patches, a slide."""
    (tmp_path / CHECKPOINT).parent.mkdir(parents=True)
    write_checkpoint(tmp_path / CHECKPOINT)
    for name in ("a", "b"):
        Image.fromarray(draw_tissue(50, 50)).save(tmp_path / f"{name}.png")
    write_pyramid(tmp_path / "slide.svs", draw_tissue())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(page: str) -> dict[str, Any]:
    """Run the examples of a page of docs/ one after the other, and return the names that they leave."""
    names: dict[str, Any] = {}
    for code in fences(ROOT / "docs" / page, "python"):
        exec(code, names)
    return names


def test_these_pages_have_examples():
    assert [page.name for page in PAGES if fences(page, "python")] == ["README.md", "slides.md", "training.md"]


def test_the_example_of_slides_maps_a_slide(folder):
    run("slides.md")
    assert (folder / "maps" / "slide" / "map.html").is_file()


def test_the_recipe_written_out_in_python_is_that_of_the_configuration(folder):
    names = run("training.md")
    recipe = yaml.safe_load((ROOT / "configs" / "cancernet.yaml").read_text())
    settings = names["task"].hparams
    for name, wanted in recipe["model"].items():
        given = settings[name]
        assert ({key: given[key] for key in wanted} if isinstance(wanted, dict) else given) == wanted, name
    assert {name: names["data"].arguments[name] for name in recipe["data"]} == recipe["data"]
    assert names["trainer"].max_epochs == recipe["trainer"]["max_epochs"]
    (averaging,) = [
        callback.__class__.__name__ for callback in names["trainer"].callbacks if "Averaging" in str(callback)
    ]
    assert recipe["trainer"]["callbacks"][0]["class_path"].endswith(f".{averaging}")
