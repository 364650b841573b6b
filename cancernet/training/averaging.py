"""Averaged weights at the end of training."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging


class TailAveraging(WeightAveraging):
    """Average the weights, and the batch norm statistics, as they stand after each epoch in the last part of a run.

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
