"""A run that was interrupted and resumed is, bit for bit, the run that was not."""

import subprocess
import sys
from pathlib import Path

import pytest

from cancernet.cli import main
from tests.output import only_line
from tests.training.interrupted import KEEP, QUIET, assert_same_run

ROOT = Path(__file__).parents[2]
SMALL = ["--data.batch_size=32", "--model.image_size=24", "--trainer.max_epochs=3", *QUIET]


@pytest.fixture(scope="module")
def data(archive, cache) -> list[str]:
    return [f"--data.root={archive}", f"--data.cache={cache}"]


def fit(root: Path, *arguments: str) -> Path:
    assert main(["fit", *arguments, f"--trainer.default_root_dir={root}"]) == 0
    return root / "lightning_logs" / "version_0"


def resume(root: Path, kept: Path, *arguments: str) -> Path:
    return fit(root, *arguments, f"--ckpt_path={kept}")


@pytest.fixture(scope="module")
def original(data, tmp_path_factory) -> tuple[Path, list[str]]:
    """A run of three epochs by the recipe of 2019, with checkpoints every four of its six steps an epoch."""
    steps = ["--checkpoint.every_n_train_steps=4", *SMALL, *data]
    arguments = ["--config=configs/original.yaml", *steps]
    return fit(tmp_path_factory.mktemp("original"), *arguments, KEEP), arguments


@pytest.fixture(scope="module")
def averaged(data, tmp_path_factory) -> tuple[Path, list[str]]:
    """A run with averaged weights, measured batch norm and calibration; no rate depends on its length."""
    steady = ["--model.schedule.name=constant", "--model.schedule.warmup=0"]
    arguments = ["--config=configs/cancernet.yaml", *steady, *SMALL, *data]
    return fit(tmp_path_factory.mktemp("averaged"), *arguments, KEEP), arguments


def test_the_recipe_of_2019_goes_on_from_an_epoch_s_end(original, tmp_path):
    whole, arguments = original
    assert_same_run(resume(tmp_path, whole / "kept/epoch-1/checkpoints/last.ckpt", *arguments), whole)


def test_it_goes_on_from_the_middle_of_an_epoch(original, tmp_path):
    whole, arguments = original
    assert_same_run(resume(tmp_path, whole / "kept/epoch-1-latest/checkpoints/latest.ckpt", *arguments), whole)


def test_a_killed_run_goes_on_from_what_it_had_written(original, tmp_path):
    whole, arguments = original
    killed = tmp_path / "killed"
    kill = "--trainer.callbacks+={class_path: tests.training.interrupted.KillItself, init_args: {at_batch: 11}}"
    command = [sys.executable, "-m", "cancernet", "fit", *arguments, kill, f"--trainer.default_root_dir={killed}"]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=1800, check=False).returncode == -9
    latest = killed / "lightning_logs" / "version_0" / "checkpoints" / "latest.ckpt"
    assert_same_run(resume(tmp_path / "resumed", latest, *arguments), whole)


def test_averaged_weights_and_measured_batch_norm_go_on(averaged, tmp_path):
    whole, arguments = averaged
    assert_same_run(resume(tmp_path, whole / "kept/epoch-1/checkpoints/last.ckpt", *arguments), whole)


def test_a_run_that_had_ended_and_was_calibrated_goes_on(averaged, tmp_path):
    whole, arguments = averaged
    ended = fit(tmp_path / "ended", *arguments, "--trainer.max_epochs=2")
    assert_same_run(resume(tmp_path / "on", ended / "checkpoints" / "last.ckpt", *arguments), whole)


def test_the_middle_of_an_epoch_under_another_order_is_refused(original, tmp_path, capsys):
    whole, arguments = original
    kept = whole / "kept/epoch-1-latest/checkpoints/latest.ckpt"
    options = [*arguments, f"--ckpt_path={kept}", f"--trainer.default_root_dir={tmp_path}", "--data.batch_size=16"]
    assert main(["fit", *options]) == 2
    assert "in the middle of an epoch needs the same batch_size as before (32, now 16)" in only_line(capsys)
