"""Runs that are stopped and resumed, and what they have to share with the run that was not."""

import math
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cancernet.checkpoints import read_checkpoint
from cancernet.cli import main

SMALL = ["--data.batch_size=32", "--model.image_size=24", "--trainer.max_epochs=3"]
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

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy what there is before the calibration."""
        folder = Path(str(trainer.log_dir))
        shutil.copytree(folder / "checkpoints", folder / "kept" / "ended" / "checkpoints")


class SignalItself(Callback):
    """Send the first process a signal at a batch, counted over all epochs, or at the first batch of an evaluation."""

    def __init__(self, number: int, at_batch: int = -1) -> None:
        self.number = number
        self.at_batch = at_batch

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Count, and send."""
        if trainer.is_global_zero and trainer.fit_loop.total_batch_idx == self.at_batch:
            os.kill(os.getpid(), self.number)

    def on_predict_batch_start(self, *_: Any) -> None:
        """Send."""
        os.kill(os.getpid(), self.number)


def signal_itself(number: int, at_batch: int = -1) -> str:
    """Return the option that adds the callback."""
    arguments = f"{{number: {int(number)}, at_batch: {at_batch}}}"
    return f"--trainer.callbacks+={{class_path: {__name__}.SignalItself, init_args: {arguments}}}"


def fit(root: Path, *arguments: str) -> Path:
    """Run a fit to its end and return its folder."""
    assert main(["fit", *arguments, f"--trainer.default_root_dir={root}"]) == 0
    return root / "lightning_logs" / "version_0"


def scalars(folder: Path, since: float = 0) -> dict[str, list[tuple[int, float]]]:
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
            content["resume"] = {**content["resume"], "job": None}
        assert_equal(one, other, name)
    logged = scalars(resumed)
    since = min((step for values in logged.values() for step, _ in values), default=math.inf)
    for tag, values in scalars(whole, since).items():
        assert logged[tag] == values[-len(logged[tag]) :], tag
