"""Callbacks: what a run writes into its folder and into TensorBoard. The task brings them (`configure_callbacks`)."""

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor

from cancernet.training.callbacks.checkpoints import checkpoint_callbacks
from cancernet.training.callbacks.figures import TensorBoardFigures
from cancernet.training.callbacks.process_timeout import ProcessTimeout
from cancernet.training.callbacks.resume import ExactResume
from cancernet.training.callbacks.run_record import Calibration, RunRecord


def fit_callbacks(trainer: Trainer) -> list[Callback]:
    """Return what a fit brings: how long it waits, its record, exact resuming, checkpoints, calibration and figures."""
    callbacks: list[Callback] = [ProcessTimeout(), RunRecord(), ExactResume(), Calibration()]
    if trainer.loggers:
        callbacks.append(LearningRateMonitor(logging_interval="epoch"))
        if not any(isinstance(callback, TensorBoardFigures) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            callbacks.append(TensorBoardFigures())
    return [*callbacks, *checkpoint_callbacks(trainer)]
