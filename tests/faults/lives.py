"""Runs in processes of their own, which are killed at a place that is known."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback

from cancernet.cli import main
from tests.training.interrupted import signal_itself

# The packages are imported once, before the processes fork from there.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["cancernet.training.cli", "cancernet.export.command", "tests.training.interrupted"])


class InterruptTwice(Callback):
    """Press Ctrl-C twice while a batch runs."""

    def on_train_batch_start(self, *_: Any) -> None:
        """Press it."""
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def live(arguments: list[str], log: Path, kill_at: tuple[str, int] | None = None) -> int:
    """Run a command in a process of its own.

    Args:
        arguments: Of the command line.
        log: Where its output goes.
        kill_at: End it as `kill -9` does: at a training batch of this process, or in the middle of writing a
            checkpoint, both counted from 0.

    Returns:
        The exit status; -9 after the kill.
    """
    process = SERVER.Process(target=_run, args=(arguments, log, kill_at))
    process.start()
    process.join(300)
    assert process.exitcode is not None, "it hangs"
    return process.exitcode


def _run(arguments: list[str], log: Path, kill_at: tuple[str, int] | None) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if kill_at is not None and kill_at[0] == "write":
        _kill_in_write(kill_at[1])
    elif kill_at is not None:
        arguments = [*arguments, signal_itself(signal.SIGKILL, kill_at[1])]
    raise SystemExit(main(arguments))


def _kill_in_write(at: int) -> None:
    """Let the n-th checkpoint be written by half."""
    whole, written = Path.write_bytes, []

    def half(path: Path, data: Any) -> int:
        written.extend([path] if path.suffix == ".ckpt" else [])
        if path.suffix != ".ckpt" or len(written) <= at:
            return whole(path, data)
        whole(path, bytes(data)[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    Path.write_bytes = half  # type: ignore[method-assign, assignment]
