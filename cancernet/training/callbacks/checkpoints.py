"""The checkpoints of a run: the best epoch and the last, always in the run's own folder."""

import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from cancernet.checkpoints import read_checkpoint
from cancernet.files import replacing
from cancernet.training.callbacks.best import NamedBest
from cancernet.training.checkpoints import run_folder
from cancernet.training.resuming import has_ended

LAST = "last"


class RunCheckpoint(NamedBest):
    """A `ModelCheckpoint` that keeps its files in its own run's folder after a resume too.

    The state that Lightning restores names files of the run that is resumed. They are copied here, scores included, so
    that the best stays the best of the whole run and no other run's file is ever written.
    """

    _restored: dict[str, Any] | None = None

    def free_interval(self) -> dict[str, Any]:
        """Watch a metric once a validation, and return the interval in steps or time that was asked for instead."""
        interval = {"every_n_train_steps": self._every_n_train_steps, "train_time_interval": self._train_time_interval}
        if self.monitor is None or not any(interval.values()):
            return {}
        self._every_n_epochs, self._every_n_train_steps, self._train_time_interval = 1, 0, None
        return interval

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where a number of steps or a time asks for it, unless a validation has to come first."""
        if at_rest(trainer):
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save; in the middle of an epoch also what had to wait for the validation."""
        super().on_validation_end(trainer, pl_module)
        every = self._every_n_train_steps
        waited = self.monitor is None and every > 0 and trainer.global_step % every == 0
        if waited and not at_epoch_end(trainer) and not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until the folder of this run is known."""
        self._restored = state_dict

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Copy the restored files into this run's folder."""
        state, self._restored = self._restored, None
        if state is not None and self.monitor is not None:
            self._take_best(state, trainer)
        elif state is not None and self.filename == LAST and self.dirpath is not None:
            self._take_end(Path(str(trainer.ckpt_path)), Path(self.dirpath) / f"{LAST}.ckpt", trainer)

    def _take_end(self, resumed: Path, copy: Path, trainer: Trainer) -> None:
        """Copy the last epoch of a run that lacks nothing but its calibration."""
        if not has_ended(read_checkpoint(resumed), trainer.max_epochs, trainer.max_steps):
            return
        if trainer.is_global_zero:
            _copy(resumed, copy)
        self.best_model_path = str(copy)

    def _take_best(self, state: dict[str, Any], trainer: Trainer) -> None:
        """Copy the best checkpoints, with their scores."""
        adopted = ((self._adopt(path, trainer), score) for path, score in state["best_k_models"].items())
        found = {path: score for path, score in adopted if path is not None}
        if not found:
            return
        self.best_k_models = found
        ranked = sorted(found, key=lambda path: float(found[path]), reverse=self.mode == "max")
        self.best_model_path, self.kth_best_model_path = ranked[0], ranked[-1]
        self.best_model_score, self.kth_value = found[ranked[0]], found[ranked[-1]]
        self.current_score = state.get("current_score")
        self.settle_best(trainer)

    def _adopt(self, name: str, trainer: Trainer) -> str | None:
        """Copy a file of the resumed run, found where it was or next to the checkpoint that is resumed."""
        resumed = Path(str(trainer.ckpt_path))
        places = [Path(name), run_folder(resumed) / "checkpoints" / Path(name).name, resumed.with_name(Path(name).name)]
        source = next((place for place in places if place.is_file()), None)
        if source is None or self.dirpath is None:
            return None
        copy = Path(self.dirpath) / source.name
        if trainer.is_global_zero:
            _copy(source, copy)
        return str(copy)


def at_epoch_end(trainer: Trainer) -> bool:
    """Tell whether the current batch is the last one of its epoch."""
    return trainer.fit_loop.epoch_loop._num_ready_batches_reached()


def at_rest(trainer: Trainer) -> bool:
    """Tell whether a run can be resumed exactly from the end of the current batch.

    Not where gradients are being accumulated; nor where a validation or the end of the epoch is due, which Lightning
    would leave out on resuming.
    """
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    due = at_epoch_end(trainer) or loop._should_accumulate()
    return not due and (fetcher is None or not loop._should_check_val_fx(fetcher))


def best_checkpoint() -> RunCheckpoint:
    """Return the callback that keeps the epoch of the highest AUROC on the validation part."""
    return RunCheckpoint(
        filename="best", monitor="val/auroc", mode="max", enable_version_counter=False, auto_insert_metric_name=False
    )


def last_checkpoint() -> RunCheckpoint:
    """Return the callback that keeps the last epoch.

    `save_last` of the callback that watches a metric keeps the last *best* epoch instead; and a validation need not
    follow each epoch.
    """
    return RunCheckpoint(filename=LAST, enable_version_counter=False, save_on_train_epoch_end=True)


def checkpoint_callbacks(trainer: Trainer) -> list[Checkpoint]:
    """Return the checkpoint callbacks of a fit: those the user configured, and best and last where not among them."""
    if not trainer.checkpoint_callbacks:
        return []  # enable_checkpointing=False
    given = [callback for callback in trainer.checkpoint_callbacks if not _is_default(callback)]
    if not any(getattr(callback, "monitor", None) for callback in given):
        given.append(best_checkpoint())
    if not any(getattr(callback, "filename", None) == LAST for callback in given):
        given.append(last_checkpoint())
    return given


def saved_checkpoints(trainer: Trainer) -> list[Path]:
    """Return the best and the last checkpoint of a fit, each once; not those that are there to resume from."""
    names = [
        name
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint) and callback.every_n_epochs
        for name in (callback.best_model_path, callback.last_model_path)
    ]
    return sorted({Path(name).resolve() for name in names if name and Path(name).is_file()})


def _copy(source: Path, copy: Path) -> None:
    if copy.exists() and copy.samefile(source):
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    with replacing(copy) as partial:
        shutil.copyfile(source, partial)


def _is_default(callback: Checkpoint) -> bool:
    """Tell the callback that Lightning adds where none is given."""
    return type(callback) is ModelCheckpoint and callback.filename is None and callback.monitor is None
