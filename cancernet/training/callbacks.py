"""Callbacks: what a run writes into its folder and into TensorBoard."""

import math
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from torchvision.utils import make_grid

from cancernet import __version__
from cancernet.data.datamodule import IDCDataModule
from cancernet.evaluation.figures import draw_confusion_matrix, draw_precision_recall, draw_roc
from cancernet.evaluation.results import (
    predictions_table,
    print_metrics,
    write_confusion_matrix,
    write_metrics,
    write_predictions,
)
from cancernet.evaluation.statistics import Confusion, rates
from cancernet.training.metrics import CURVES
from cancernet.training.runs import data_state, output_folder, read_checkpoint, run_folder

FIGURE_SHARE = 0.02
"""Share of the run's time that figures may take: after drawing, the next one waits until this is true again."""
GRID_PATCHES = 32


def _data(trainer: Trainer) -> IDCDataModule:
    return trainer.datamodule  # type: ignore[attr-defined, no-any-return]


class RunRecord(SaveConfigCallback):
    """Write the configuration as run and the split into the folder of a fit."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write `config.yaml`; a test writes none, so that the run's own stays."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write `split.csv` (its format can be given to `--data.split`) and `left_out.csv`."""
        if not trainer.is_global_zero or trainer.log_dir is None:
            return
        data = _data(trainer)
        folder = Path(trainer.log_dir)
        data.split.table(data.store.index).to_csv(folder / "split.csv", index=False)
        data.split.left_out.to_csv(folder / "left_out.csv", index=False)


class TensorBoardFigures(Callback):
    """Draw validation figures and a grid of training patches, seldom enough to cost little."""

    def __init__(self) -> None:
        self._next_at = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Show the first batch of the run as the network gets it, augmented."""
        board = self._board(trainer)
        if board is None or trainer.global_step > 0 or batch_idx > 0:
            return
        grid = make_grid(batch["image"][:GRID_PATCHES].float().cpu(), nrow=8)
        board.add_image("train/augmented_patches", grid, trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw confusion matrix, ROC and precision-recall curve of the validation part."""
        board = self._board(trainer)
        last = trainer.max_epochs is not None and trainer.current_epoch + 1 >= trainer.max_epochs
        if board is None or trainer.sanity_checking or (time.monotonic() < self._next_at and not last):
            return
        start = time.monotonic()
        values: dict[str, Any] = pl_module.computed["val"]  # type: ignore[assignment, index]
        synthetic = _data(trainer).store.synthetic
        matrix = values["confusion_matrix"].cpu().numpy()
        false_positive_rate, sensitivity, _ = (curve.cpu().numpy() for curve in values["roc"])
        precision, recall, _ = (curve.cpu().numpy() for curve in values["precision_recall_curve"])
        prevalence = matrix[1].sum() / matrix.sum()
        figures = {
            "confusion_matrix": draw_confusion_matrix(matrix, "validation, threshold 0.5", synthetic),
            "roc": draw_roc(false_positive_rate, sensitivity, float(values["auroc"]), synthetic),
            "precision_recall": draw_precision_recall(
                precision, recall, float(values["average_precision"]), prevalence, synthetic
            ),
        }
        for name, figure in figures.items():
            board.add_figure(f"val/{name}", figure, trainer.global_step)
        end = time.monotonic()
        self._next_at = end + (end - start) / FIGURE_SHARE

    @staticmethod
    def _board(trainer: Trainer) -> Any:
        if not trainer.is_global_zero or not isinstance(trainer.logger, TensorBoardLogger):
            return None
        return trainer.logger.experiment


class ResultFiles(Callback):
    """Write what a test or a prediction found into the folder of the run that the checkpoint belongs to.

    Args:
        checkpoint: The checkpoint's path.
    """

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint
        self.folder = run_folder(checkpoint)
        self.metrics: dict[str, Any] | None = None

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write metrics, predictions and confusion matrix."""
        if not trainer.is_global_zero:
            return
        self._write_predictions(_data(trainer), pl_module, "test")
        self.metrics = self._collect_metrics(_data(trainer), pl_module)
        write_metrics(self.folder, self.metrics)
        write_confusion_matrix(self.folder, self.metrics)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the predictions."""
        if trainer.is_global_zero:
            self._write_predictions(_data(trainer), pl_module, "predict")

    def print(self) -> None:
        """Print the metrics of a test."""
        if self.metrics is not None:
            print_metrics(self.metrics)

    def _write_predictions(self, data: IDCDataModule, task: Any, verb: str) -> None:
        trained_on = data_state(read_checkpoint(self.checkpoint)).get("description", {})
        self.folder = output_folder(self.checkpoint, trained_on, data.description, verb)
        rows, logit = task.predictions
        write_predictions(self.folder, predictions_table(data.store.index, data.split.part, rows, logit))

    def _collect_metrics(self, data: IDCDataModule, task: Any) -> dict[str, Any]:
        values = task.computed["test"]
        matrix = values["confusion_matrix"].tolist()
        # torchmetrics has a number for everything; what is 0/0 is said to be undefined.
        defined = rates(Confusion(*matrix[0], *matrix[1]))
        scores = {name: float(value) for name, value in values.items() if name not in CURVES}
        patches = sum(map(sum, matrix))
        description = data.description
        return {
            **{name: defined[name] if math.isnan(defined.get(name, 0.0)) else value for name, value in scores.items()},
            "confusion_matrix": matrix,
            "threshold": 0.5,
            "prevalence": sum(matrix[1]) / patches,
            "patches": patches,
            "cases": int(data.store.index["case"].iloc[task.predictions[0]].nunique()),
            "part": "test",
            "data": description.pop("name"),
            **description,
            "checkpoint": Path(self.checkpoint).name,
            "version": __version__,
        }
