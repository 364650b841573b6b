"""Commands on a full or read-only disk: found out before the work, one line that names the place, files as before."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cancernet.cli import main
from cancernet.training.task import ClassificationTask
from tests.output import only_line
from tests.training.calibrated import QUIET

ROOT = Path(__file__).parents[2]


@pytest.fixture
def disk(run, make_disk):
    """A disk that holds a copy of the run, and a megabyte."""
    size = sum(path.stat().st_size for path in run.rglob("*") if path.is_file())
    disk = make_disk((size >> 20) + 8)
    shutil.copytree(run, disk.path / "run")
    return disk


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def commands(run: Path, cache: Path) -> dict[str, list[str]]:
    checkpoint = run / "checkpoints" / "best.ckpt"
    options = [f"--ckpt_path={checkpoint}", f"--data.cache={cache}", *QUIET]
    return {
        "test": ["test", *options],
        "a part of a test": ["test", *options, "--trainer.limit_test_batches=1"],
        "predict": ["predict", *options],
        "calibrate": ["calibrate", str(checkpoint), f"--cache={cache}"],
        "report": ["report", str(run)],
        "compare": ["compare", str(run), str(run), f"--output={run / 'comparison'}"],
        "export": ["export", str(checkpoint)],
        "synthesize": ["synthesize", str(run / "synthetic.zip"), "--cases=3"],
    }


BEFORE_THE_WORK = {"test", "a part of a test", "predict", "calibrate"}
NAMES = list(commands(Path(), Path()))


def refused(name: str, run: Path, cache: Path, capsys, monkeypatch) -> str:
    if name in BEFORE_THE_WORK:
        monkeypatch.setattr(ClassificationTask, "predict_logit", None)
    before = files_of(run)
    assert main(commands(run, cache)[name]) in (1, 2)
    line = only_line(capsys)
    assert files_of(run) == before
    assert [path.name for path in run.rglob("*") if path.name.endswith(".partial")] == []
    return line


@pytest.mark.parametrize("name", NAMES)
def test_a_read_only_folder_is_named(name, disk, cache, capsys, monkeypatch):
    disk.make_read_only()
    line = refused(name, disk.path / "run", cache, capsys, monkeypatch)
    assert "Read-only file system" in line
    assert str(disk.path) in line


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_named(name, disk, cache, capsys, monkeypatch):
    disk.leave(3 << 12)
    line = refused(name, disk.path / "run", cache, capsys, monkeypatch)
    assert "No space left on device" in line or "MB are needed" in line
    assert str(disk.path) in line


def fit(root: Path, store: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    options = [f"--data.root={store}", "--data.batch_size=32", f"--trainer.default_root_dir={root}", *QUIET]
    command = [sys.executable, "-m", "cancernet", "fit", *options, "--trainer.max_epochs=2"]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=600, check=False
    )


def one_line_of(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("cancernet: error: ")]
    return line


@pytest.mark.parametrize("free", [1 << 12, 1 << 20, 20 << 20])
def test_a_fit_whose_disk_runs_full_leaves_whole_files_only(free, make_disk, store):
    disk = make_disk(32)
    disk.leave(free)
    done = fit(disk.path, store.path)
    assert done.returncode in (1, 2)
    line = one_line_of(done)
    assert str(disk.path) in line
    for file in disk.path.rglob("*.ckpt"):
        assert main(["calibrate", str(file), "--root=synthetic-not-there"]) == 2  # it is read as a whole before
    assert [path.name for path in disk.path.rglob("*") if path.name.endswith(".partial")] == []


def test_a_full_folder_for_temporary_files_does_no_harm(make_disk, store, tmp_path):
    disk = make_disk(1)
    disk.leave(0)
    done = fit(tmp_path, store.path, TMPDIR=str(disk.path))
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.rglob("*.ckpt")} == {"best.ckpt", "last.ckpt"}


def test_a_read_only_root_is_named_before_training(make_disk, store):
    disk = make_disk(1)
    disk.make_read_only()
    done = fit(disk.path, store.path)
    assert done.returncode in (1, 2)
    assert str(disk.path) in one_line_of(done)
    assert "Epoch" not in done.stdout
