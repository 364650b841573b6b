"""Signals to fits of one and two processes, and eight fits in one instant."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml

from tests.faults.lives import SERVER, live
from tests.training.interrupted import QUIET, assert_same_run, signal_itself

ROOT = Path(__file__).parents[2]
LENGTH = ["--data.batch_size=16", "--model.image_size=24", "--trainer.max_epochs=3", *QUIET]


@pytest.fixture
def arguments(archive, cache, store) -> list[str]:
    return ["--config=configs/original.yaml", f"--data.root={archive}", f"--data.cache={cache}", *LENGTH]


def console(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "cancernet", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


def processes_of(root: Path) -> list[psutil.Process]:
    """Return what still runs with that root on its command line."""
    own = (process for process in psutil.process_iter() if process.pid != os.getpid())
    return [process for process in own if any(str(root) in word for word in _command(process))]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_two_processes_stop_together_and_go_on(number, status, arguments, tmp_path):
    """The first one alone gets the signal, as `kill` sends it."""
    two = ["--trainer.strategy=ddp", "--trainer.devices=2"]
    whole = console("fit", *arguments, *two, f"--trainer.default_root_dir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr[-3000:]
    root = tmp_path / "stopped"
    done = console("fit", *arguments, *two, signal_itself(number, at_batch=8), f"--trainer.default_root_dir={root}")
    assert done.returncode == status, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    time.sleep(1)
    assert processes_of(root) == []
    said, line, folder = done.stdout.splitlines()[-3:]
    assert (said, folder) == (f"stopped by {number.name}", str(root / "lightning_logs" / "version_0"))
    words = shlex.split(line)
    resumed = console(*words[words.index("fit") :])
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    of_root, of_whole = root / "lightning_logs" / "version_1", tmp_path / "whole" / "lightning_logs" / "version_0"
    assert_same_run(of_root, of_whole)


def test_a_second_ctrl_c_ends_at_once(arguments, tmp_path):
    twice = "{class_path: tests.faults.lives.InterruptTwice}"
    done = console("fit", *arguments, f"--trainer.callbacks+={twice}", f"--trainer.default_root_dir={tmp_path}")
    assert done.returncode == 130, done.stderr[-3000:]
    assert "Ctrl-C again: at once" in done.stderr
    assert not list(tmp_path.rglob("*.ckpt"))


def test_eight_fits_in_one_instant_get_a_folder_each(arguments, tmp_path):
    command = ["fit", *arguments, "--trainer.max_epochs=1", f"--trainer.default_root_dir={tmp_path}"]
    fits = [
        SERVER.Process(target=live, args=([*command, f"--seed_everything={seed}"], tmp_path / f"log{seed}"))
        for seed in range(8)
    ]
    for fit in fits:
        fit.start()
    for fit in fits:
        fit.join(600)
    folders = sorted((tmp_path / "lightning_logs").iterdir())
    assert [folder.name for folder in folders] == [f"version_{number}" for number in range(8)]
    seeds = {yaml.safe_load((folder / "config.yaml").read_text())["seed_everything"] for folder in folders}
    assert seeds == set(range(8))
    assert all((folder / "checkpoints" / "last.ckpt").is_file() for folder in folders)
