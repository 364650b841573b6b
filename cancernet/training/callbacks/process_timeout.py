"""How long the processes of a job wait for each other."""

from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

ALONE = timedelta(minutes=30)
"""Torch's own: so long may one process pack before the first batch, compile in it, or calibrate after the last."""
BETWEEN_BATCHES = timedelta(seconds=90)
"""While batches are worked on, no process is more than seconds behind the others."""


class ProcessTimeout(Callback):
    """End a process that waits for others that are gone, or behind a network that is cut, within two minutes.

    A timeout that was given to the strategy stays.
    """

    _short = False

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Wait for a short time only from now on."""
        self._shorten(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Wait for a short time only from now on."""
        self._shorten(trainer)

    def on_test_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Wait for a short time only from now on."""
        self._shorten(trainer)

    def on_predict_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Wait for a short time only from now on."""
        self._shorten(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for a long time again, for the process that calibrates."""
        if self._short:
            self._short = False
            _set_timeout(ALONE)

    def _shorten(self, trainer: Trainer) -> None:
        if not self._short and trainer.world_size > 1 and getattr(trainer.strategy, "_timeout", None) == ALONE:
            self._short = True
            _set_timeout(BETWEEN_BATCHES)


def _set_timeout(timeout: timedelta) -> None:
    # Before torch 2.15 there was only the private name.
    distributed = torch.distributed
    set_timeout = getattr(distributed, "set_timeout", None) or distributed.distributed_c10d._set_pg_timeout
    set_timeout(timeout)
