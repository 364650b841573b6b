"""The checkpoint within an epoch, to resume from: after some steps or some time, and when a signal stops the run."""

import os
import signal
import subprocess
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from cancernet.signals import watch
from cancernet.training.callbacks.checkpoints import RunCheckpoint, at_epoch_end, at_rest

LATEST = "latest"
"""Name of the checkpoint within an epoch; it is not calibrated."""


class LatestCheckpoint(RunCheckpoint):
    """Keep the newest state within an epoch as `latest.ckpt`; at a signal write it, and end.

    SIGTERM and Ctrl-C are noted while training runs, also where SLURM asks to queue the job again. At the end of the
    batch, in the last batch of an epoch at the epoch's, all processes agree on it: one may have got it alone.

    Args:
        every_n_train_steps: Steps between two checkpoints; 0 for none.
        train_time_interval: Time between two checkpoints.
    """

    def __init__(self, every_n_train_steps: int = 0, train_time_interval: timedelta | None = None) -> None:
        super().__init__(
            filename=LATEST,
            every_n_epochs=0,
            every_n_train_steps=None if train_time_interval is not None else every_n_train_steps,
            train_time_interval=train_time_interval,
            enable_version_counter=False,
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note signals from now on."""
        super().on_train_start(trainer, pl_module)
        watch.note(lambda: end_processes(trainer), _requeue_signal(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where that was asked for; stop where a signal was noted."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if at_rest(trainer):
            self._stop_if_asked(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do the same after a validation in the middle of an epoch."""
        super().on_validation_end(trainer, pl_module)
        if not trainer.sanity_checking and not at_epoch_end(trainer):
            self._stop_if_asked(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop where a signal was noted in the last batch or in the validation."""
        super().on_train_epoch_end(trainer, pl_module)
        self._stop_if_asked(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End at once from now on: the last epoch's checkpoint is written."""
        super().on_train_end(trainer, pl_module)
        watch.end_noting()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End at once from now on."""
        watch.forget()

    def _stop_if_asked(self, trainer: Trainer) -> None:
        number = _agree(trainer, watch.received)
        if not number:
            return
        if not trainer.fast_dev_run and self.dirpath is not None:  # type: ignore[attr-defined]
            self._save_checkpoint(trainer, str(Path(self.dirpath) / f"{LATEST}.ckpt"))
        if number == _requeue_signal(trainer) and trainer.is_global_zero:
            _requeue()
        watch.end(number)


class OneLife(Callback):
    """Let no process outlive the one that started it, and give this program its signals, which Lightning takes."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals."""
        watch.take_over()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals."""
        watch.take_over()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals."""
        watch.take_over()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals."""
        watch.take_over()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the processes that this one started: alone they would wait for it."""
        end_processes(trainer)


def end_processes(trainer: Trainer) -> None:
    """End the processes that this one started. They write nothing that this one would not."""
    launcher = trainer.strategy.launcher
    if getattr(launcher, "procs", None):
        launcher.kill(signal.SIGKILL)  # type: ignore[union-attr]


def _agree(trainer: Trainer, received: int) -> int:
    """Return the signal that any process has received, 0 for none; all of them have to ask."""
    if trainer.world_size == 1:
        return received
    device = trainer.strategy.root_device
    return int(trainer.strategy.reduce(torch.tensor(received, device=device), reduce_op="max"))


def _requeue_signal(trainer: Trainer) -> int | None:
    """Return the signal by which SLURM says that the job will be queued again."""
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue and environment.requeue_signal:
        return int(environment.requeue_signal)
    return None


def _requeue() -> None:
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    job = os.environ["SLURM_JOB_ID"] if array is None else f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        rank_zero_warn(f"SLURM did not queue job {job} again ({error}); do it by: scontrol requeue {job}")
