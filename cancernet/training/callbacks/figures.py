"""Figures of the validation part and a grid of training patches, in TensorBoard."""

from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.figure import Figure
from torchvision.utils import make_grid

from cancernet.evaluation.calibration import reliability
from cancernet.evaluation.figures import draw_confusion_matrix, draw_precision_recall, draw_reliability, draw_roc

GRID_PATCHES = 32


class TensorBoardFigures(Callback):
    """Draw the figures of the validation part, and once a grid of augmented training patches.

    Args:
        every_n_epochs: Epochs between figures, which take about a second to draw; the last epoch gets them always.
    """

    def __init__(self, every_n_epochs: int = 5) -> None:
        self.every_n_epochs = every_n_epochs
        self._drawn_at = -1

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Show the first batch of the run as the network gets it, augmented."""
        board = self._board(trainer)
        if board is not None and trainer.global_step == 0 and batch_idx == 0:
            grid = make_grid(batch["image"][:GRID_PATCHES].float().cpu(), nrow=8)
            board.add_image("train/augmented_patches", grid, trainer.global_step)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the figures of every n-th epoch."""
        if not trainer.sanity_checking and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the figures of the last epoch."""
        if self._drawn_at != trainer.global_step:
            self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: Any) -> None:
        """Draw confusion matrix, ROC and precision-recall curve and reliability of the latest validation."""
        board, values = self._board(trainer), pl_module.computed.get("val")
        if board is None or values is None:
            return
        store = getattr(trainer.datamodule, "store", None)  # type: ignore[attr-defined]
        for name, figure in draw_validation(values, getattr(store, "synthetic", False)).items():
            board.add_figure(f"val/{name}", figure, trainer.global_step)
        self._drawn_at = trainer.global_step

    @staticmethod
    def _board(trainer: Trainer) -> Any:
        if not trainer.is_global_zero or not isinstance(trainer.logger, TensorBoardLogger):
            return None
        return trainer.logger.experiment


def draw_validation(values: dict[str, Any], synthetic: bool) -> dict[str, Figure]:
    """Draw what the collection of metrics computed.

    Args:
        values: From `build_metrics().compute()`.
        synthetic: Say so in the titles.
    """
    matrix = values["confusion_matrix"].cpu().numpy()
    false_positive_rate, sensitivity, threshold = (curve.cpu().numpy() for curve in values["roc"])
    precision, recall, _ = (curve.cpu().numpy() for curve in values["precision_recall_curve"])
    benign, idc = matrix.sum(axis=1)
    figures = {
        "confusion_matrix": draw_confusion_matrix(matrix, "validation, threshold 0.5", synthetic),
        "roc": draw_roc(false_positive_rate, sensitivity, f"ROC, AUROC {values['auroc']:.3f}", synthetic),
        "precision_recall": draw_precision_recall(
            precision,
            recall,
            idc / (benign + idc),
            f"Precision-recall, average precision {values['average_precision']:.3f}",
            synthetic,
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
        title = f"Reliability, {len(bins.count)} bins of {int(np.median(bins.count)):,} patches"
        figures["reliability"] = draw_reliability(bins, title, synthetic)
    return figures
