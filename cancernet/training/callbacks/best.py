"""What `best.ckpt` means: the best epoch of the whole run, with any number of files kept, or an error."""

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from cancernet.checkpoints import read_checkpoint
from cancernet.errors import InputError
from cancernet.files import replacing

BEST = "best"
"""Name of the file with the best epoch."""
EACH = "epoch-{epoch:02d}"
"""Names of the files, numbered from 0, where more than one are kept; the best of them is `best.ckpt` as well."""


class NamedBest(ModelCheckpoint):
    """A `ModelCheckpoint` whose file `best` is the best of the run with any `save_top_k`.

    Lightning's own would write all that it keeps to that one name, and leave the latest of them there.
    """

    _several = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what leaves no best, and name the files.

        Raises:
            InputError: There will be no best epoch.
        """
        super().setup(trainer, pl_module, stage)
        if self.filename != BEST or stage != TrainerFn.FITTING:
            return
        if self.monitor is None:
            raise InputError(
                "checkpoint.monitor: best.ckpt is the best epoch by a metric; name one, such as val/auroc, or give "
                "--checkpoint.filename another name"
            )
        if self.save_top_k == 0:
            raise InputError("checkpoint.save_top_k: 0 would keep no best.ckpt; give 1 or more, or -1 for all epochs")
        _require_validation(trainer)
        # The end of the last epoch is another callback's; here it would be that of the last epoch that was good enough.
        self.save_last = None
        if self.save_top_k != 1:
            self._several, self.filename = True, EACH

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Let a validation follow the last step, which may come within an epoch."""
        if trainer.global_step == trainer.max_steps:
            trainer.should_stop = True
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let `best.ckpt` be the best as it is now, calibrated, and miss it in no run that is called complete.

        Raises:
            InputError: There is none.
        """
        if trainer.fast_dev_run or self.dirpath is None or not (self._several or self.filename == BEST):  # type: ignore[attr-defined]
            return
        self._copy_best(trainer)
        if trainer.is_global_zero and not self._best_file.is_file():
            raise InputError(
                f"{self._best_file}: no epoch was validated, so none is the best (last.ckpt is there); "
                "train longer, or give --trainer.check_val_every_n_epoch 1"
            )

    def settle_best(self, trainer: Trainer) -> None:
        """Name files that come from the run that is resumed as this one names its own, and keep as many."""
        scores = self.best_k_models
        ranked = sorted(scores, key=lambda path: float(scores[path]), reverse=self.mode == "max")
        if not ranked or not (self._several or self.filename == BEST):
            return
        kept = ranked if self.save_top_k == -1 else ranked[: self.save_top_k]
        names = {path: self._own_name(path) for path in kept}
        trainer.strategy.barrier()  # each process has read the files before the first renames them
        if trainer.is_global_zero:
            for path in ranked:
                if path not in names:
                    Path(path).unlink(missing_ok=True)
                elif path != names[path]:
                    Path(path).replace(names[path])
        self.best_k_models = {names[path]: scores[path] for path in kept}
        self.best_model_path, self.kth_best_model_path = names[kept[0]], names[kept[-1]]
        self.best_model_score = self.best_k_models[self.best_model_path]
        self.kth_value = self.best_k_models[self.kth_best_model_path]
        self._copy_best(trainer)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        super()._save_checkpoint(trainer, filepath)
        if filepath == self.best_model_path:
            self._copy_best(trainer)

    @property
    def _best_file(self) -> Path:
        return Path(str(self.dirpath)) / f"{BEST}{self.FILE_EXTENSION}"

    def _own_name(self, path: str) -> str:
        if not self._several:
            return str(self._best_file)
        return str(self._best_file.with_name(EACH.format(epoch=read_checkpoint(path)["epoch"]) + self.FILE_EXTENSION))

    def _copy_best(self, trainer: Trainer) -> None:
        if self._several and trainer.is_global_zero and self.best_model_path:
            with replacing(self._best_file) as partial:
                shutil.copyfile(self.best_model_path, partial)


def _require_validation(trainer: Trainer) -> None:
    """Refuse a run that ends before its first validation."""
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    way_out = "so no epoch would be the best; give another one"
    if trainer.limit_val_batches == 0:
        raise InputError(f"trainer.limit_val_batches: 0 validates nothing, {way_out}")
    if every is not None and epochs is not None and 0 < epochs < every:
        raise InputError(
            f"trainer.check_val_every_n_epoch: {every} is more than trainer.max_epochs, {epochs}, {way_out}"
        )
