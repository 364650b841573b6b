"""Stop a run that diverges before it overwrites what was good, and warn of one that may."""

import math
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from cancernet.errors import INPUT, InputError, listing
from cancernet.training.resuming import newest_checkpoint

LOOK_EVERY = 10
"""Batches between two looks at the loss where a look waits for the device or for other processes."""
FIRST = 100
"""Batches, at most, of the first epoch whose median loss is taken for normal."""
EXPLODED, IN_A_ROW = 10.0, 20
"""A warning follows when the loss is so many times the normal one for so many batches in a row."""
NAMED = 8
"""Cases of a batch that are named."""


class Divergence(Callback):
    """Watch the loss of each batch, the loss of each validation and the weights of each checkpoint.

    A number that is not finite ends training with an `InputError` that names the batch, before anything is saved. On
    the CPU each batch is looked at when it is done; elsewhere some together, as a look waits for the device.
    """

    def __init__(self) -> None:
        self._unseen: list[tuple[int, Tensor | None, Tensor]] = []
        self._first: list[float] = []
        self._above = 0
        self._warned = False

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Keep the loss with the rows of its batch, and look at what was kept."""
        rows = batch.get("index") if isinstance(batch, dict) else None
        self._unseen.append((batch_idx, rows, outputs["loss"].detach()))
        at_once = trainer.world_size == 1 and pl_module.device.type == "cpu"
        if len(self._unseen) >= (1 if at_once else LOOK_EVERY):
            self._look(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look, before weights that are no good are validated."""
        self._look(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a validation without a number, before it is called the best."""
        loss = pl_module.computed.get("val", {}).get("loss", 0.0)  # type: ignore[operator, union-attr]
        if not trainer.sanity_checking and not math.isfinite(loss):
            self._stop(trainer, f"the validation loss of epoch {trainer.current_epoch} is {float(loss)}")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse to save weights that are not finite."""
        self._look(trainer)
        values = [value for value in checkpoint["state_dict"].values() if value.is_floating_point()]
        if values and not torch.stack([value.isfinite().all() for value in values]).all():
            self._stop(trainer, f"weights are no longer finite after step {trainer.global_step}")

    def state_dict(self) -> dict[str, Any]:
        """Return what is normal, and how long the loss has been far above it."""
        return {"first": self._first, "above": self._above, "warned": self._warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what was normal."""
        self._first, self._above = list(state_dict["first"]), state_dict["above"]
        self._warned = state_dict["warned"]

    def _look(self, trainer: Trainer) -> None:
        unseen, self._unseen = self._unseen, []
        if not unseen:
            return
        losses = torch.stack([loss for _, _, loss in unseen]).tolist()  # waits for the device, once
        at = next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), None)
        found = None if at is None else self._describe(trainer, unseen[at], losses[at])
        if trainer.world_size > 1 and trainer.strategy.reduce_boolean_decision(found is not None, all=False):
            of_all: list[str | None] = [None] * trainer.world_size
            torch.distributed.all_gather_object(of_all, found)
            found = next((one for one in of_all if one is not None), None)
        if found is not None:
            self._stop(trainer, found)
        for loss in losses:
            self._compare(trainer, loss)

    def _compare(self, trainer: Trainer, loss: float) -> None:
        """Warn once of a loss that is finite and far above what it was."""
        if trainer.current_epoch == 0 and len(self._first) < FIRST:
            self._first.append(loss)
        elif self._first and not self._warned:
            self._above = self._above + 1 if loss > EXPLODED * median(self._first) else 0
            if self._above == IN_A_ROW:
                self._warned = True
                rank_zero_warn(
                    f"The training loss explodes: above {EXPLODED:.0f} times the {median(self._first):.3g} of the "
                    f"first batches for {IN_A_ROW} batches, now {loss:.3g}; a lower --model.optimizer.lr may help."
                )

    @staticmethod
    def _describe(trainer: Trainer, batch: tuple[int, Tensor | None, Tensor], loss: float) -> str:
        number, rows, _ = batch
        store = getattr(trainer.datamodule, "store", None)  # type: ignore[attr-defined]
        told = f"the loss of batch {number} of epoch {trainer.current_epoch} is {loss}"
        if rows is None or store is None:
            return told
        cases = sorted(set(store.index["case"].to_numpy()[rows.cpu().numpy()]))
        return f"{told}; it holds patches of the cases {listing(cases, NAMED)}"

    @staticmethod
    def _stop(trainer: Trainer, what: str) -> None:
        if not trainer.is_global_zero:
            raise SystemExit(INPUT)  # the first process tells
        folder = getattr(trainer.checkpoint_callback, "dirpath", None)
        good = None if folder is None else newest_checkpoint(Path(folder))
        kept = "no checkpoint had been written" if good is None else f"the last good checkpoint is {good}"
        raise InputError(f"training diverged: {what}; {kept}; try a lower --model.optimizer.lr")
