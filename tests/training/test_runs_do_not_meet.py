"""Runs of one root keep to themselves: a folder each, and no SLURM job goes on with another one's checkpoint."""

import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from cancernet.checkpoints import read_checkpoint
from cancernet.cli import main
from cancernet.training.version_folder import reserve_version
from tests.training.interrupted import assert_same_run, signal_itself


@pytest.mark.parametrize("kind", [TensorBoardLogger, CSVLogger])
def test_eight_runs_in_one_instant_get_a_folder_each(kind, tmp_path):
    loggers = [kind(tmp_path) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(reserve_version, loggers))
    assert sorted(logger.version for logger in loggers) == list(range(8))
    assert all(Path(logger.log_dir).is_dir() for logger in loggers)


def test_a_version_that_was_given_stays(tmp_path):
    logger = TensorBoardLogger(tmp_path, version="mine")
    reserve_version(logger)
    assert logger.version == "mine"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def job(monkeypatch, tmp_path) -> Path:
    """The variables of a SLURM job with one process, and a scontrol that writes down what it is asked."""
    variables = {"JOB_ID": 4711, "JOB_NAME": "train", "NTASKS": 1, "PROCID": 0, "LOCALID": 0, "NODEID": 0}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    asked = tmp_path / "asked"
    program = tmp_path / "bin" / "scontrol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" > {asked}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return asked


def test_another_job_s_checkpoint_is_left_alone(original_run, job, tmp_path):
    whole, arguments = original_run
    shutil.copy(whole / "checkpoints" / "last.ckpt", tmp_path / "hpc_ckpt_1.ckpt")
    options = ["--trainer.max_epochs=1", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", *arguments, *options]) == 0
    last = read_checkpoint(tmp_path / "lightning_logs" / "version_4711" / "checkpoints" / "last.ckpt")
    assert (last["epoch"], last["global_step"]) == (0, 6)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_job_that_is_queued_again_goes_on_by_itself(number, original_run, job, tmp_path):
    whole, arguments = original_run
    command = ["fit", *arguments, f"--trainer.default_root_dir={tmp_path}"]
    assert main([*command, signal_itself(number, at_batch=8)]) == 128 + number
    assert job.exists() == (number == signal.SIGUSR1)
    assert not job.exists() or job.read_text().split() == ["requeue", "4711"]
    assert main(command) == 0
    assert_same_run(tmp_path / "lightning_logs" / "version_4711", whole)


def test_a_job_with_the_number_of_another_one_starts_again(original_run, job, tmp_path):
    """The numbers of another cluster, which shares the disk, are the same."""
    whole, arguments = original_run
    shutil.copytree(whole, tmp_path / "lightning_logs" / "version_4711")
    options = ["--trainer.max_epochs=1", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", *arguments, *options]) == 0
    epochs = [
        read_checkpoint(tmp_path / "lightning_logs" / f"version_{number}" / "checkpoints" / "last.ckpt")["epoch"]
        for number in (4711, 4712)
    ]
    assert epochs == [2, 0]
