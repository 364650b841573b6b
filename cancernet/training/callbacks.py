"""Callbacks: what a run writes into its folder and into TensorBoard."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torchvision.utils import make_grid

from cancernet.data.datamodule import IDCDataModule
from cancernet.evaluation.calibration import reliability
from cancernet.evaluation.figures import draw_confusion_matrix, draw_precision_recall, draw_reliability, draw_roc
from cancernet.evaluation.pictures import choose_pictures
from cancernet.evaluation.report import write_report
from cancernet.evaluation.results import PredictionsOrigin, TestMetrics
from cancernet.evaluation.run_folder import predictions_table, write_predicted, write_split, write_tested
from cancernet.evaluation.terminal import print_metrics
from cancernet.training.checkpoints import data_state, output_folder, read_checkpoint, recorded_calibration, run_folder
from cancernet.training.test_metrics import collect_metrics, describe_provenance

FIGURE_SHARE = 0.02
"""Share of the run's time that figures may take."""
FIRST_FIGURES = 1.0
"""Seconds that the first figures are expected to take, on the slow side; afterwards it is measured."""
GRID_PATCHES = 32


def _data(trainer: Trainer) -> IDCDataModule:
    return trainer.datamodule  # type: ignore[attr-defined]


class RunRecord(SaveConfigCallback):
    """Write the configuration as run and the split into the folder of a fit."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write `config.yaml`; a test writes none, so that the run's own stays."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write `split.csv` (its format can be given to `--data.split`) and `left_out.csv`."""
        # Asking for the folder is a broadcast, so every process has to.
        log_dir = trainer.log_dir
        if not trainer.is_global_zero or log_dir is None:
            return
        data = _data(trainer)
        write_split(Path(log_dir), data.split.table(data.store.index), data.split.left_out)


class TensorBoardFigures(Callback):
    """Draw validation figures and a grid of training patches, seldom enough to cost less than `FIGURE_SHARE` of a run.

    Figures are drawn after a validation where the time spent on them so far, and once more what they took the last
    time, stays within that share of the time since the start: every n epochs, n following from the two. A run too
    short for any gets them once, at its end.

    Args:
        clock: Tells the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._spent = 0.0
        self._cost = FIRST_FIGURES
        self._drawn = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note when the run begins."""
        self._started = self._clock()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Show the first batch of the run as the network gets it, augmented."""
        board = self._board(trainer)
        if board is None or trainer.global_step > 0 or batch_idx > 0:
            return
        start = self._clock()
        grid = make_grid(batch["image"][:GRID_PATCHES].float().cpu(), nrow=8)
        board.add_image("train/augmented_patches", grid, trainer.global_step)
        self._spent += self._clock() - start

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the figures of the validation part where they are due."""
        if trainer.sanity_checking or self._spent + self._cost > FIGURE_SHARE * (self._clock() - self._started):
            return
        self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw them once in a run that was too short for them."""
        if not self._drawn:
            self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: Any) -> None:
        """Draw confusion matrix, ROC and precision-recall curve and reliability of the latest validation."""
        board, values = self._board(trainer), pl_module.computed.get("val")
        if board is None or values is None:
            return
        start = self._clock()
        for name, figure in draw_validation(values, _data(trainer).store.synthetic).items():
            board.add_figure(f"val/{name}", figure, trainer.global_step)
        self._cost = self._clock() - start
        self._spent += self._cost
        self._drawn = True

    @staticmethod
    def _board(trainer: Trainer) -> Any:
        if not trainer.is_global_zero or not isinstance(trainer.logger, TensorBoardLogger):
            return None
        return trainer.logger.experiment


def draw_validation(values: dict[str, Any], synthetic: bool) -> dict[str, Figure]:
    """Draw what the collection of metrics computed."""
    matrix = values["confusion_matrix"].cpu().numpy()
    false_positive_rate, sensitivity, threshold = (curve.cpu().numpy() for curve in values["roc"])
    precision, recall, _ = (curve.cpu().numpy() for curve in values["precision_recall_curve"])
    benign, idc = matrix.sum(axis=1)
    figures = {
        "confusion_matrix": draw_confusion_matrix(matrix, "validation, threshold 0.5", synthetic),
        "roc": draw_roc(false_positive_rate, sensitivity, float(values["auroc"]), synthetic),
        "precision_recall": draw_precision_recall(
            precision, recall, float(values["average_precision"]), idc / (benign + idc), synthetic
        ),
    }
    # A part of the validation (limit_val_batches) may lack a class, a diverged network its probabilities.
    if benign and idc and np.isfinite(threshold).all():
        # Each step of the exact ROC curve is one distinct probability; its length counts the patches that share it.
        counts = [
            np.rint(rate * total).astype(np.int64)
            for rate, total in ((false_positive_rate, benign), (sensitivity, idc))
        ]
        probability = np.concatenate([np.repeat(threshold[1:], np.diff(count)) for count in counts])
        bins = reliability(np.repeat([0, 1], [benign, idc]), probability)
        figures["reliability"] = draw_reliability(bins.mean_predicted, bins.observed, bins.count, synthetic)
    return figures


class ResultFiles(Callback):
    """Write what a test or a prediction found into the folder of the run that the checkpoint belongs to.

    Args:
        checkpoint: The checkpoint's path.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint
        self.folder = run_folder(checkpoint)
        self.metrics: TestMetrics | None = None
        self._started = time.monotonic()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note when the test begins."""
        self._started = time.monotonic()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write predictions, pictures, metrics, confusion matrix, report and model card."""
        if not trainer.is_global_zero:
            return
        data, content = _data(trainer), read_checkpoint(self.checkpoint)
        calibration = recorded_calibration(content)
        threshold = 0.5 if calibration is None else calibration["threshold"]
        table = self._tabulate(data, pl_module, content, "test")
        checkpoint = (Path(self.checkpoint).name, content)
        self.metrics = collect_metrics(trainer, pl_module, data, table, checkpoint, self._started)  # type: ignore[arg-type]
        rows: np.ndarray = pl_module.predictions[0]  # type: ignore[index, assignment]
        # Nothing is written before all is computed: what cannot be judged leaves the files of the last test in place.
        pictures = choose_pictures(table, data.store.gather, rows, threshold)
        write_tested(self.folder, self.metrics, table, pictures)
        write_report(self.folder)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the predictions, and what they come from."""
        if not trainer.is_global_zero:
            return
        content = read_checkpoint(self.checkpoint)
        calibration = recorded_calibration(content) or {}
        table = self._tabulate(_data(trainer), pl_module, content, "predict")
        chosen = {name: calibration.get(name) for name in ("threshold", "temperature")}
        provenance = describe_provenance(_data(trainer), Path(self.checkpoint).name)
        write_predicted(self.folder, PredictionsOrigin.model_validate({**dict(provenance), **chosen}), table)

    def print(self) -> None:
        """Print the metrics of a test."""
        if self.metrics is not None:
            print_metrics(self.metrics)

    def _tabulate(self, data: IDCDataModule, task: Any, content: dict[str, Any], verb: str) -> pd.DataFrame:
        trained_on = data_state(content).get("description", {})
        self.folder = output_folder(self.checkpoint, trained_on, data.description, verb)
        rows, logit = task.predictions
        calibration = recorded_calibration(content)
        temperature = None if calibration is None else calibration["temperature"]
        return predictions_table(data.store.index, data.split.part, rows, logit, temperature)
