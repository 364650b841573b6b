"""The wheel holds the product: installed into an empty environment, away from the checkout, it does the whole work."""

import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.docs.pages import fences
from tests.slides.drawing import draw_tissue, write_pyramid

ROOT = Path(__file__).parents[1]


COMMANDS = """
from pathlib import Path
from cancernet.cli import main

run, checkpoint = "lightning_logs/version_0", "lightning_logs/version_0/checkpoints/last.ckpt"
Path(run, "report.html").unlink()
assert main(["test", f"--ckpt_path={checkpoint}", "--trainer.accelerator=cpu"]) == 0
Path(run, "report.html").unlink()
assert main(["report", run]) == 0
assert main(["export", checkpoint, "--format=torch", "--output=model.pt2"]) == 0
print(Path(cancernet.__file__).parent)
"""


def run(*command: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the tracked files with what is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--disable-pip-version-check"]
    run(sys.executable, "-m", "pip", "wheel", *options, "-w", folder, source, cwd=folder)
    (file,) = folder.glob("*.whl")
    return file


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"cancernet"}
    templates = {
        f"cancernet/{name}" for name in ("evaluation/report/templates/report.html.j2", "slides/templates/slide.html.j2")
    }
    assert {"cancernet/py.typed", *templates} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "benchmark" in name or "studies" in name]


def test_the_installed_wheel_runs_the_examples_of_the_readme_and_the_commands_from_another_folder(wheel, tmp_path):
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # The dependencies are those of this environment; the .pth files in it, such as the checkout's, do not count.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    work = tmp_path / "elsewhere"
    work.mkdir()
    run(python, "-m", "cancernet", "synthesize", "archive.zip", "--cases=6", cwd=work)
    for name in ("a", "b"):
        Image.fromarray(draw_tissue(50, 50)).save(work / f"{name}.png")
    write_pyramid(work / "slide.svs", draw_tissue())
    # One process for all: each would import torch and Keras again.
    examples = [re.sub(r"max_epochs=\d+", "max_epochs=1", code) for code in fences(ROOT / "README.md", "python")]
    assert len(examples) == 2
    code = "\n".join(["import os", 'os.environ["XDG_CACHE_HOME"] = "cache"', *examples, COMMANDS])
    folder = work / "lightning_logs" / "version_0"
    assert run(python, "-c", code, cwd=work).splitlines()[-1] == str(packages / "cancernet")
    assert (folder / "report.html").stat().st_size > 10_000
    assert (work / "maps" / "slide" / "map.html").is_file()
    assert (work / "model.pt2").is_file()
