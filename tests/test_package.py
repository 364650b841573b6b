"""The wheel holds the product: installed into an empty environment, away from the checkout, it does the whole work."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


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


def test_the_installed_wheel_fits_tests_reports_and_exports_from_another_folder(wheel, tmp_path):
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    (packages,) = (tmp_path / "env").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    # The dependencies are those of this environment; the .pth files in it, such as the checkout's, do not count.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    work = tmp_path / "elsewhere"
    work.mkdir()
    assert str(packages) in run(python, "-c", "import cancernet; print(cancernet.__file__)", cwd=work)
    quiet = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    run(python, "-m", "cancernet", "synthesize", "slides.zip", "--cases=6", cwd=work)
    fit = ["--data.root=slides.zip", "--data.cache=cache", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
    folder = Path(run(python, "-m", "cancernet", "fit", *fit, *quiet, cwd=work).splitlines()[-1])
    checkpoint = folder / "checkpoints" / "last.ckpt"
    run(python, "-m", "cancernet", "test", f"--ckpt_path={checkpoint}", *quiet, cwd=work)
    (folder / "report.html").unlink()
    run(python, "-m", "cancernet", "report", folder, cwd=work)
    run(python, "-m", "cancernet", "export", checkpoint, "--format=torch", "--output=model.pt2", cwd=work)
    assert (folder / "report.html").stat().st_size > 10_000
    assert (work / "model.pt2").is_file()
