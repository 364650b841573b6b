"""What a test found, put together as the content of `metrics.json`."""

import math
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch import Trainer

from cancernet import __version__
from cancernet.data.datamodule import IDCDataModule
from cancernet.errors import InputError
from cancernet.evaluation.analysis import Scores, analyse, rates_of
from cancernet.evaluation.baselines import BaselineScores, score_baselines
from cancernet.training.checkpoints import data_state, recorded_calibration
from cancernet.training.metrics import CURVES
from cancernet.training.provenance import describe_data_flow, describe_environment, prove_disjoint


def collect_metrics(
    trainer: Trainer,
    task: Any,
    data: IDCDataModule,
    table: pd.DataFrame,
    checkpoint: tuple[str, dict[str, Any]],
    started: float,
) -> dict[str, Any]:
    """Join what torchmetrics computed, what NumPy adds, and where it all comes from.

    Args:
        trainer: Ran the test.
        task: Holds what torchmetrics computed, and the rows of the predictions.
        data: The data judged.
        table: The predictions (see `results.predictions_table`), in the order of the task's rows.
        checkpoint: Name and content of the judged file.
        started: `time.monotonic()` at the start of the test.

    Returns:
        The content of `metrics.json` (see `evaluation/metrics.schema.json`); NaN where undefined.

    Raises:
        InputError: The network gives logits that are not finite.
    """
    name, content = checkpoint
    judged = (table["split"] == "test").to_numpy()
    rows = task.predictions[0][judged]
    members = table[judged]
    logit = members["logit"].to_numpy()
    if not np.isfinite(logit).all():
        count = int((~np.isfinite(logit)).sum())
        raise InputError(f"{name}: {count} of {len(logit)} logits are not finite; train again at a lower learning rate")
    scores = Scores(members["label"].to_numpy(), logit, members["case"].to_numpy(dtype=object))
    calibration = recorded_calibration(content)
    # Baselines learn from the run's own training part: other data may not even have one.
    own = data_state(content).get("description") == data.description
    return {
        **_headline(task),
        "cases": int(members["case"].nunique()),
        "part": "test",
        **describe_origin(data, name),
        "network": task.hparams["network"],
        **analyse(scores, calibration, _score_baselines(data, rows) if own else None),
        "data_flow": describe_data_flow(data),
        "exposure_known": data.seen_before is None or data.seen_before.known,
        "leak_proof": prove_disjoint(data, rows),
        "environment": describe_environment(trainer, started),
    }


def describe_origin(data: IDCDataModule, checkpoint: str) -> dict[str, Any]:
    """Say which data and which checkpoint predictions come from."""
    description = data.description
    return {
        "data": description.pop("name"),
        **description,
        "leaks": data.split.unit == "patch",
        "checkpoint": checkpoint,
        "version": __version__,
    }


def _headline(task: Any) -> dict[str, Any]:
    values = task.computed["test"]
    matrix = values["confusion_matrix"].tolist()
    # torchmetrics has a number for everything; what is 0/0 is said to be undefined.
    defined = rates_of(matrix)
    # In single precision an average precision of 1 may come out as 1.0000001; a loss has no upper end.
    scores = {
        name: float(value if name == "loss" else value.clamp(max=1))
        for name, value in values.items()
        if name not in CURVES
    }
    patches = sum(map(sum, matrix))
    return {
        **{name: defined[name] if math.isnan(defined.get(name, 0.0)) else value for name, value in scores.items()},
        "confusion_matrix": matrix,
        "threshold": 0.5,
        "prevalence": sum(matrix[1]) / patches,
        "patches": patches,
    }


def _score_baselines(data: IDCDataModule, judged: np.ndarray) -> BaselineScores | None:
    label = data.store.index["label"].to_numpy()
    return score_baselines(data.store.gather, label, data.split.rows("train"), data.split.rows("validation"), judged)
