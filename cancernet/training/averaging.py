"""Averaged weights and batch-norm statistics, which are what is validated and saved."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class ExponentialAveraging(WeightAveraging):
    """Exponential moving average of the weights, updated after each step.

    The n-th average (from 0) keeps min(decay, (1 + n) / (10 + n)) of the one before, the rule of TensorFlow's
    ExponentialMovingAverage. Lightning's own keeps decay^n of the initial values: a moving variance starts at 1 and
    ends near 0.002 in the first layer of CancerNet, so after 350 steps at 0.99 it is twenty times too large.

    Args:
        decay: Share that is kept in the long run, 0 to below 1; the average reaches back some 1 / (1 - decay) steps.
    """

    def __init__(self, decay: float = 0.99) -> None:
        def blend(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor) -> None:
            # The count stays on the device: reading its value would wait for it.
            kept = ((1 + count) / (10 + count)).clamp(max=decay)
            change = torch._foreach_sub(list(current), list(averaged))
            torch._foreach_mul_(change, 1 - kept)
            torch._foreach_add_(list(averaged), change)

        super().__init__(multi_avg_fn=blend)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the average when a fit has ended: validation would put it in the place of recalibrated weights."""
        self._average_model = None

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up the average where a fit resumes; a test has it already, as the checkpoint's weights."""
        if self._average_model is not None:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)
