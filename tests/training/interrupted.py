"""Runs that are stopped and resumed, and what they have to share with the run that was not."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cancernet.checkpoints import read_checkpoint

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
KEEP = "--trainer.callbacks+=tests.training.interrupted.KeepEach"


class KeepEach(Callback):
    """Keep each state of the checkpoints of a run, as if it had been killed when that was the newest."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Copy the folder before the first batch of an epoch, and where a step within it was saved."""
        folder = Path(str(trainer.log_dir)) / "checkpoints"
        name = f"epoch-{trainer.current_epoch}"
        if batch_idx == 0 and trainer.current_epoch > 0:
            shutil.copytree(folder, folder.parent / "kept" / name / "checkpoints")
        elif (folder / "latest.ckpt").exists() and not (folder.parent / "kept" / f"{name}-latest").exists():
            shutil.copytree(folder, folder.parent / "kept" / f"{name}-latest" / "checkpoints")


class KillItself(Callback):
    """End the process as `kill -9` does, at a batch counted over all epochs."""

    def __init__(self, at_batch: int) -> None:
        self.at_batch = at_batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count, and end."""
        if trainer.fit_loop.total_batch_idx == self.at_batch:
            os.kill(os.getpid(), signal.SIGKILL)


def scalars(folder: Path, since: int = 0) -> dict[str, list[tuple[int, float]]]:
    """Read what a run logged, from a step on."""
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    found = {
        # A run begins with -1 as the metric of its hyperparameters.
        tag: [(event.step, event.value) for event in events.Scalars(tag) if event.step >= since and event.value != -1]
        for tag in events.Tags()["scalars"]
    }
    return {tag: values for tag, values in found.items() if values}


def assert_equal(one: Any, other: Any, place: str = "checkpoint") -> None:
    """Compare two contents of checkpoints bit for bit."""
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for name, value in one.items():
            assert_equal(value, other[name], f"{place}.{name}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for number, (value, there) in enumerate(zip(one, other, strict=True)):
            assert_equal(value, there, f"{place}[{number}]")
    else:
        assert one == other, place


def assert_same_run(resumed: Path, whole: Path, names: tuple[str, ...] = ("last", "best")) -> None:
    """Compare the checkpoints of two run folders, but for the folders they name, and what both logged."""
    for name in names:
        one, other = (read_checkpoint(folder / "checkpoints" / f"{name}.ckpt") for folder in (resumed, whole))
        for content in (one, other):
            content.pop("callbacks")
        assert_equal(one, other, name)
    logged = scalars(resumed)
    since = min(step for values in logged.values() for step, _ in values)
    for tag, values in scalars(whole, since).items():
        assert logged[tag] == values[-len(logged[tag]) :], tag
