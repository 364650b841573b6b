"""The files of a test or a prediction."""

import time
from dataclasses import replace
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
from cancernet.evaluation.results import Extent, PredictionsOrigin, TestMetrics
from cancernet.evaluation.run_folder import predictions_table, write_predicted, write_tested
from cancernet.files import require_space
from cancernet.training.checkpoints import data_state, output_folder, recorded_calibration
from cancernet.training.results import collect_metrics, describe_extent, describe_provenance, map_activations

PATCH_BYTES = 1000
"""Bytes of a patch in the result files, at most: its rows of the tables and its thumbnail."""
SPARE_BYTES = 5_000_000
"""For the pages and the pictures of mistakes."""


class ResultFiles(Callback):
    """Write the results of `test` and `predict` into the folder of the run that the checkpoint belongs to.

    Results of a part of the patches (`limit_test_batches`, `limit_predict_batches`) go into a folder of their own.

    Attributes:
        folder: Where the results are; None before, and where nothing was written.
        metrics: The test metrics.
        part_of: How many patches of how many were run; None where all were.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.metrics: TestMetrics | None = None
        self.part_of: str | None = None
        self._started = time.monotonic()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note when the test begins, and find out whether its results can be written."""
        self._started = time.monotonic()
        self._require_space(trainer, "test")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out whether the predictions can be written."""
        self._require_space(trainer, "predict")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write predictions, pictures, metrics, confusion matrix, report and model card."""
        if not self._applies(trainer):
            return
        data, content = trainer.datamodule, read_checkpoint(trainer.ckpt_path)  # type: ignore[attr-defined, arg-type]
        calibration = recorded_calibration(content) or {}
        table = self._tabulate(trainer, pl_module, calibration)
        checkpoint = (Path(str(trainer.ckpt_path)).name, content)
        extent = self._extent(trainer.test_dataloaders, table)
        self.metrics = collect_metrics(trainer, pl_module, data, table, checkpoint, self._started, extent)
        rows: np.ndarray = pl_module.predictions[0]  # type: ignore[index, assignment]
        pictures = choose_pictures(table, data.store.gather, rows, calibration.get("threshold", 0.5))
        activations = map_activations(pl_module, data, rows[pictures.mistake_row])
        # Nothing is written before all is computed: an error leaves the files of the last test in place.
        self.folder, self.part_of = self._place(trainer, "test", self.metrics.whole), self.metrics.part_of
        write_tested(self.folder, self.metrics, table, replace(pictures, mistake_map=activations))
        write_report(self.folder)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the predictions, and what they come from."""
        if not self._applies(trainer):
            return
        content = read_checkpoint(trainer.ckpt_path)  # type: ignore[arg-type]
        calibration = recorded_calibration(content) or {}
        table = self._tabulate(trainer, pl_module, calibration)
        chosen = {name: calibration.get(name) for name in ("threshold", "temperature")}
        provenance = describe_provenance(trainer.datamodule, Path(str(trainer.ckpt_path)).name)  # type: ignore[attr-defined]
        extent = describe_extent(self._extent(trainer.predict_dataloaders, table))
        origin = PredictionsOrigin.model_validate({**dict(provenance), **chosen, **extent})
        self.folder, self.part_of = self._place(trainer, "predict", origin.whole), origin.part_of
        write_predicted(self.folder, origin, table)

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

    def _require_space(self, trainer: Trainer, verb: str) -> None:
        if trainer.ckpt_path is not None and self._applies(trainer):
            data: IDCDataModule = trainer.datamodule  # type: ignore[attr-defined]
            require_space(self._place(trainer, verb), PATCH_BYTES * len(data.store) + SPARE_BYTES)

    @staticmethod
    def _extent(loaders: Any, table: pd.DataFrame) -> Extent:
        """Count the patches that were run, and those of all batches."""
        all_loaders = loaders if isinstance(loaders, list) else [loaders]
        return Extent(evaluated=len(table), patches=sum(len(loader.sampler.rows) for loader in all_loaders))

    @staticmethod
    def _place(trainer: Trainer, verb: str, whole: bool = True) -> Path:
        """Return the folder of the results."""
        checkpoint, data = str(trainer.ckpt_path), trainer.datamodule  # type: ignore[attr-defined]
        trained_on = data_state(read_checkpoint(checkpoint)).get("description", {})
        return output_folder(checkpoint, trained_on, data.description, verb, whole)

    @staticmethod
    def _tabulate(trainer: Trainer, task: Any, calibration: dict[str, Any]) -> pd.DataFrame:
        data: IDCDataModule = trainer.datamodule  # type: ignore[attr-defined]
        rows, logit = task.predictions
        return predictions_table(data.store.index, data.split.part, rows, logit, calibration.get("temperature"))
