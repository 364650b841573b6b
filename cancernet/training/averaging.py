"""Averages of the weights, and of the batch norm statistics, which are what is validated and saved.

They run in Lightning's `WeightAveraging`. Its own exponential average keeps decay^n of where the weights started: a
moving variance starts at 1 and ends near 0.002 in the first layer of CancerNet, so after 350 steps at 0.99 the average
is twenty times too large, and the network next to blind. Ours forgets the start.
"""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor


class ExponentialAveraging(WeightAveraging):
    """Average the weights after each step, the newest with the largest share.

    The n-th average (from 0) keeps min(decay, (1 + n) / (10 + n)) of the one before, the rule of TensorFlow's
    ExponentialMovingAverage.

    Args:
        decay: Share that is kept in the long run, 0 to below 1; the average reaches back some 1 / (1 - decay) steps.
    """

    def __init__(self, decay: float = 0.99) -> None:
        def blend(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor) -> None:
            # The count lives on the device: to ask for its value would be to wait for it.
            kept = ((1 + count) / (10 + count)).clamp(max=decay)
            change = torch._foreach_sub(list(current), list(averaged))
            torch._foreach_mul_(change, 1 - kept)
            torch._foreach_add_(list(averaged), change)

        super().__init__(multi_avg_fn=blend)


class TailAveraging(WeightAveraging):
    """Average the weights as they stand after each epoch in the last part of a run.

    Equal weights, as in stochastic weight averaging (Izmailov et al. 2018), under whatever schedule the run has. Before
    that part the average is the latest epoch alone, so that validation has something to show.

    Args:
        tail: Share of the epochs, 0 to 1, that are averaged.
    """

    def __init__(self, tail: float = 0.25) -> None:
        super().__init__()
        self.tail = tail

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take in the weights after the last batch of an epoch, which is before they are validated."""
        if not trainer.is_last_batch:
            return
        if trainer.current_epoch <= round((1 - self.tail) * (trainer.max_epochs or 0)):
            assert self._average_model is not None
            self._average_model.n_averaged.zero_()
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Take in the weights of a step that `on_train_batch_end` lets through."""
        return step_idx is not None
