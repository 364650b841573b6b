"""The files of a test or a prediction."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn

from cancernet.checkpoints import read_checkpoint
from cancernet.data.datamodule import IDCDataModule
from cancernet.evaluation.pictures import choose_pictures
from cancernet.evaluation.report import write_report
from cancernet.evaluation.results import PredictionsOrigin, TestMetrics
from cancernet.evaluation.run_folder import predictions_table, write_predicted, write_tested
from cancernet.training.checkpoints import data_state, output_folder, recorded_calibration
from cancernet.training.results import collect_metrics, describe_provenance


class ResultFiles(Callback):
    """Write the results of `test` and `predict` into the folder of the run that the checkpoint belongs to.

    Attributes:
        folder: Where the results are; None before, and where nothing was written.
        metrics: The test metrics.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.metrics: TestMetrics | None = None
        self._started = time.monotonic()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note when the test begins."""
        self._started = time.monotonic()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write predictions, pictures, metrics, confusion matrix, report and model card."""
        if not self._applies(trainer):
            return
        data, content = trainer.datamodule, read_checkpoint(trainer.ckpt_path)  # type: ignore[attr-defined, arg-type]
        calibration = recorded_calibration(content) or {}
        table = self._tabulate(trainer, pl_module, calibration)
        checkpoint = (Path(str(trainer.ckpt_path)).name, content)
        self.metrics = collect_metrics(trainer, pl_module, data, table, checkpoint, self._started)
        rows: np.ndarray = pl_module.predictions[0]  # type: ignore[index, assignment]
        pictures = choose_pictures(table, data.store.gather, rows, calibration.get("threshold", 0.5))
        # Nothing is written before all is computed: an error leaves the files of the last test in place.
        folder = self._make_folder(trainer, content, "test")
        write_tested(folder, self.metrics, table, pictures)
        write_report(folder)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the predictions, and what they come from."""
        if not self._applies(trainer):
            return
        content = read_checkpoint(trainer.ckpt_path)  # type: ignore[arg-type]
        calibration = recorded_calibration(content) or {}
        table = self._tabulate(trainer, pl_module, calibration)
        folder = self._make_folder(trainer, content, "predict")
        chosen = {name: calibration.get(name) for name in ("threshold", "temperature")}
        provenance = describe_provenance(trainer.datamodule, Path(str(trainer.ckpt_path)).name)  # type: ignore[attr-defined]
        write_predicted(folder, PredictionsOrigin.model_validate({**dict(provenance), **chosen}), table)

    def _applies(self, trainer: Trainer) -> bool:
        """Tell whether there is something to write; a dry run writes nothing."""
        if not trainer.is_global_zero or not isinstance(trainer.datamodule, IDCDataModule):  # type: ignore[attr-defined]
            return False
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return False
        if trainer.ckpt_path is None:
            rank_zero_warn("No result files are written for weights in memory: give ckpt_path, such as 'last'.")
            return False
        return True

    def _make_folder(self, trainer: Trainer, content: dict[str, Any], verb: str) -> Path:
        trained_on = data_state(content).get("description", {})
        self.folder = output_folder(str(trainer.ckpt_path), trained_on, trainer.datamodule.description, verb)  # type: ignore[attr-defined]
        return self.folder

    @staticmethod
    def _tabulate(trainer: Trainer, task: Any, calibration: dict[str, Any]) -> pd.DataFrame:
        data: IDCDataModule = trainer.datamodule  # type: ignore[attr-defined]
        rows, logit = task.predictions
        return predictions_table(data.store.index, data.split.part, rows, logit, calibration.get("temperature"))
