"""Callbacks: what a run writes into its folder and into TensorBoard. The task brings them (`configure_callbacks`)."""

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.trainer.states import TrainerFn

from cancernet.training.callbacks.checkpoints import RunCheckpoint, checkpoint_callbacks
from cancernet.training.callbacks.divergence import Divergence
from cancernet.training.callbacks.figures import TensorBoardFigures
from cancernet.training.callbacks.latest import LatestCheckpoint, OneLife
from cancernet.training.callbacks.process_timeout import ProcessTimeout
from cancernet.training.callbacks.results import ResultFiles
from cancernet.training.callbacks.resume import ExactResume
from cancernet.training.callbacks.run_record import Calibration, RunRecord
from cancernet.training.features import require_supported
from cancernet.training.version_folder import reserve_version


def run_callbacks(trainer: Trainer) -> list[Callback]:
    """Return what a run brings: how long it waits; of a fit its record, exact resuming, checkpoints and figures."""
    if trainer.state.fn != TrainerFn.FITTING:
        return [OneLife(), ProcessTimeout(), ResultFiles()]
    require_supported(trainer)
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            reserve_version(logger)
    callbacks: list[Callback] = [OneLife(), ProcessTimeout(), Divergence()]
    callbacks += [RunRecord(), ExactResume(), Calibration()]
    if trainer.loggers:
        callbacks.append(LearningRateMonitor(logging_interval="epoch"))
        if not any(isinstance(callback, TensorBoardFigures) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            callbacks.append(TensorBoardFigures())
    checkpoints = checkpoint_callbacks(trainer)
    if not checkpoints:
        return callbacks
    # A metric changes with a validation: the best is told then, and what is asked for by steps or time is the latest.
    intervals = [callback.free_interval() for callback in checkpoints if isinstance(callback, RunCheckpoint)]
    latest = LatestCheckpoint(**next((interval for interval in intervals if interval), {}))
    return [*callbacks, *checkpoints, latest]
