"""What of Lightning does not work here, refused ahead of training, with what does."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EarlyStopping,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

from cancernet.errors import InputError
from cancernet.training.metrics import CURVES, StageMetrics

REFUSED = {
    StochasticWeightAveraging: "it needs batch norm that counts its batches; average by "
    "cancernet.training.averaging.ExponentialAveraging, and measure batch norm by --model.measure_batch_norm true",
    LearningRateFinder: "the rate is one of several settings of an optimiser here; give --model.optimizer.lr, "
    "and compare some by scripts/ablate",
    BatchSizeFinder: "the batch size belongs to the recipe; give --data.batch_size",
}
"""Callbacks of Lightning -> why not, and what instead."""


def require_supported(trainer: Trainer) -> None:
    """Refuse options of a fit that would fail later, or after all epochs.

    Raises:
        InputError: Names the option and what to give instead.
    """
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        raise InputError(
            "trainer.strategy: processes that are spawned or forked from this one do not give its run back (ddp_spawn, "
            "ddp_fork, ddp_notebook); give ddp, or --trainer.devices 1 in a notebook"
        )
    known = metric_names()
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for kind, reason in REFUSED.items():
            if isinstance(callback, kind):
                raise InputError(f"{kind.__name__}: {reason}")
        monitor = callback.monitor if isinstance(callback, EarlyStopping | ModelCheckpoint) else None
        if monitor is not None and monitor not in known:
            name = "checkpoint" if isinstance(callback, ModelCheckpoint) else type(callback).__name__
            raise InputError(f"{name}: no metric is named {monitor!r}; monitor one of {', '.join(known)}")


def metric_names() -> list[str]:
    """Return the names of the numbers that a fit logs once an epoch."""
    numbers = [*(str(name) for name in StageMetrics().collection if name not in CURVES), "loss"]
    return [f"{stage}/{name}" for stage in ("val", "train") for name in sorted(numbers)]


def dropped_callbacks(configs: Iterable[tuple[str, Any]], kept: Iterable[str]) -> list[str]:
    """Say which callbacks of one configuration file another one replaces: a list in a file replaces the one before.

    Args:
        configs: Name and content of each file, in order.
        kept: Class paths of the callbacks that are left.

    Returns:
        A line for each callback that is lost.

    >>> one = {"trainer": {"callbacks": [{"class_path": "a.Averaging"}]}}
    >>> dropped_callbacks([("one.yaml", one), ("two.yaml", {"trainer": {"callbacks": []}})], [])
    ['a.Averaging of one.yaml is dropped: two.yaml has trainer.callbacks of its own; repeat it there to keep it']
    """
    left = set(kept)
    lines: list[str] = []
    before: dict[str, str] = {}
    for file, content in configs:
        trainer = content.get("trainer") if isinstance(content, dict) else None
        callbacks = trainer.get("callbacks") if isinstance(trainer, dict) else None
        if callbacks is None:
            continue
        lines += [
            f"{path} of {earlier} is dropped: {Path(file).name} has trainer.callbacks of its own; repeat it there to "
            "keep it"
            for path, earlier in before.items()
            if path not in left
        ]
        listed = callbacks if isinstance(callbacks, list) else [callbacks]
        before = {each["class_path"] if isinstance(each, dict) else str(each): Path(file).name for each in listed}
    return lines
