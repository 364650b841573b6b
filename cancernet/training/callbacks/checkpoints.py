"""The checkpoints of a run: the best epoch and the last, always in the run's own folder."""

import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from cancernet.training.callbacks.best import NamedBest
from cancernet.training.checkpoints import run_folder

LATEST = "latest"
"""Name of the checkpoint within an epoch; it is there to resume from, and not calibrated."""


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
        if state is None or self.monitor is None:
            return
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
        if trainer.is_global_zero and not (copy.exists() and copy.samefile(source)):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        return str(copy)


class LatestCheckpoint(RunCheckpoint):
    """Keep the newest state within an epoch as `latest.ckpt`, to resume from.

    Args:
        every_n_train_steps: Steps between two of them; 0 for none.
        train_time_interval: Time between two of them.
    """

    def __init__(self, every_n_train_steps: int = 0, train_time_interval: timedelta | None = None) -> None:
        steps = None if train_time_interval is not None else every_n_train_steps
        super().__init__(
            filename=LATEST,
            every_n_epochs=0,
            every_n_train_steps=steps,
            train_time_interval=train_time_interval,
            enable_version_counter=False,
        )


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
    return RunCheckpoint(filename="last", enable_version_counter=False, save_on_train_epoch_end=True)


def checkpoint_callbacks(trainer: Trainer) -> list[Checkpoint]:
    """Return the checkpoint callbacks of a fit: those the user configured, and best and last where not among them."""
    if not trainer.checkpoint_callbacks:
        return []  # enable_checkpointing=False
    given = [callback for callback in trainer.checkpoint_callbacks if not _is_default(callback)]
    # A metric changes with a validation: the best is told then, and what is asked for by steps or time is the latest.
    intervals = [callback.free_interval() for callback in given if isinstance(callback, RunCheckpoint)]
    latest = LatestCheckpoint(**next((interval for interval in intervals if interval), {}))
    if not any(getattr(callback, "monitor", None) for callback in given):
        given.append(best_checkpoint())
    if not any(getattr(callback, "filename", None) == "last" for callback in given):
        given.append(last_checkpoint())
    return [*given, latest]


def saved_checkpoints(trainer: Trainer) -> list[Path]:
    """Return the best and the last checkpoint of a fit, each once."""
    names = [
        name
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint) and callback.filename != LATEST
        for name in (callback.best_model_path, callback.last_model_path)
    ]
    return sorted({Path(name).resolve() for name in names if name and Path(name).is_file()})


def _is_default(callback: Checkpoint) -> bool:
    """Tell the callback that Lightning adds where none is given."""
    return type(callback) is ModelCheckpoint and callback.filename is None and callback.monitor is None
