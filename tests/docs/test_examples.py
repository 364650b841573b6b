"""The Python examples of README and docs run as they stand, page by page, on a small synthetic archive."""

import shutil
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.docs.pages import PAGES, ROOT, fences
from tests.slides.drawing import draw_tissue, write_checkpoint, write_pyramid

USE = [page for page in PAGES if fences(page, "python") and page.name != "training.md"]
CHECKPOINT = "lightning_logs/version_0/checkpoints/last.ckpt"


@pytest.fixture
def folder(tmp_path, archive, monkeypatch):
    """A working folder with what the examples name: an archive, two patches, a slide."""
    shutil.copy(archive, tmp_path / "archive.zip")
    for name in ("a", "b"):
        Image.fromarray(draw_tissue(50, 50)).save(tmp_path / f"{name}.png")
    write_pyramid(tmp_path / "slide.svs", draw_tissue())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def run(*examples: str) -> dict[str, Any]:
    """Run examples as they stand, but for the number of epochs, and return the names that they leave."""
    names: dict[str, Any] = {}
    for code in examples:
        exec(code.replace("max_epochs=32", "max_epochs=1"), names)
    return names


@pytest.mark.parametrize("page", USE, ids=lambda page: page.name)
def test_the_examples_of_a_page_run(page, folder):
    examples = fences(page, "python")
    if not any("trainer.fit" in code for code in examples):
        (folder / CHECKPOINT).parent.mkdir(parents=True)
        write_checkpoint(folder / CHECKPOINT)
    run(*examples)
    if page.name == "README.md":
        assert (folder / "lightning_logs/version_0/report.html").is_file()
        assert (folder / "maps/slide/map.html").is_file()


def test_the_recipe_written_out_in_python_is_that_of_the_configuration(folder):
    names = run(*fences(ROOT / "docs" / "training.md", "python"))
    recipe = yaml.safe_load((ROOT / "configs" / "cancernet.yaml").read_text())
    settings = names["task"].hparams
    for name, wanted in recipe["model"].items():
        given = settings[name]
        assert ({key: given[key] for key in wanted} if isinstance(wanted, dict) else given) == wanted, name
    assert {name: names["data"].arguments[name] for name in recipe["data"]} == recipe["data"]
    (averaging,) = [
        callback.__class__.__name__ for callback in names["trainer"].callbacks if "Averaging" in str(callback)
    ]
    assert recipe["trainer"]["callbacks"][0]["class_path"].endswith(f".{averaging}")
