"""A run that was interrupted and resumed is, bit for bit, the run that was not."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cancernet.checkpoints import read_checkpoint
from cancernet.cli import main
from tests.output import only_line
from tests.training.interrupted import KEEP, QUIET, SMALL, assert_equal, assert_same_run, fit, signal_itself

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(archive, cache) -> list[str]:
    return [f"--data.root={archive}", f"--data.cache={cache}"]


def resume(root: Path, kept: Path, *arguments: str) -> Path:
    return fit(root, *arguments, f"--ckpt_path={kept}")


@pytest.fixture(scope="module")
def averaged(data, tmp_path_factory) -> tuple[Path, list[str]]:
    """A run with averaged weights, measured batch norm and calibration; no rate depends on its length."""
    steady = ["--model.schedule.name=constant", "--model.schedule.warmup=0"]
    arguments = ["--config=configs/cancernet.yaml", *steady, *SMALL, *QUIET, *data]
    return fit(tmp_path_factory.mktemp("averaged"), *arguments, KEEP), arguments


def test_the_recipe_of_2019_goes_on_from_an_epoch_s_end(original_run, tmp_path):
    whole, arguments = original_run
    assert_same_run(resume(tmp_path, whole / "kept/epoch-1/checkpoints/last.ckpt", *arguments), whole)


def test_it_goes_on_from_the_middle_of_an_epoch(original_run, tmp_path):
    whole, arguments = original_run
    assert_same_run(resume(tmp_path, whole / "kept/epoch-1-latest/checkpoints/latest.ckpt", *arguments), whole)


def test_a_killed_run_goes_on_from_what_it_had_written(original_run, tmp_path):
    whole, arguments = original_run
    killed = tmp_path / "killed"
    options = [signal_itself(signal.SIGKILL, at_batch=11), f"--trainer.default_root_dir={killed}"]
    command = [sys.executable, "-m", "cancernet", "fit", *arguments, *options]
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


def test_a_run_without_its_calibration_is_completed_where_it_says(averaged, tmp_path, capsys):
    whole, arguments = averaged
    completed = resume(tmp_path, whole / "kept/ended/checkpoints/last.ckpt", *arguments)
    assert capsys.readouterr().out.splitlines()[-1] == str(completed)
    for name in ("best", "last"):
        one, other = (read_checkpoint(folder / "checkpoints" / f"{name}.ckpt") for folder in (completed, whole))
        assert_equal(one, other, name)


def test_the_middle_of_an_epoch_under_another_order_is_refused(original_run, tmp_path, capsys):
    whole, arguments = original_run
    kept = whole / "kept/epoch-1-latest/checkpoints/latest.ckpt"
    options = [*arguments, f"--ckpt_path={kept}", f"--trainer.default_root_dir={tmp_path}", "--data.batch_size=16"]
    assert main(["fit", *options]) == 2
    assert "in the middle of an epoch needs the same batch_size as before (32, now 16)" in only_line(capsys)


@pytest.mark.parametrize("kept", ["epoch-1/checkpoints/last.ckpt", "epoch-1-latest/checkpoints/latest.ckpt"])
def test_a_run_whose_length_is_given_in_steps_goes_on(kept, data, tmp_path):
    steps = ["--trainer.max_epochs=-1", "--trainer.max_steps=15", "--checkpoint.every_n_train_steps=4"]
    arguments = ["--config=configs/original.yaml", *SMALL, *QUIET, *data, *steps]
    whole = fit(tmp_path / "whole", *arguments, KEEP)
    assert_same_run(resume(tmp_path / "resumed", whole / "kept" / kept, *arguments), whole)
