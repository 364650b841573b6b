"""Collect the test metrics of a run: what `metrics.json` holds."""

from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer

from cancernet import __version__
from cancernet.data.datamodule import IDCDataModule
from cancernet.errors import InputError
from cancernet.evaluation.analysis import Scores, analyse
from cancernet.evaluation.baselines import BaselineScores, score_baselines
from cancernet.evaluation.results import Extent, Provenance, StoredCalibration, TestMetrics
from cancernet.model.activation_map import class_activation
from cancernet.training.checkpoints import data_state, recorded_calibration
from cancernet.training.provenance import describe_data_flow, describe_environment, prove_disjoint

ACTIVATION_BATCH = 16
"""Patches per pass of `map_activations`, which keeps the feature maps of a batch."""


def collect_metrics(
    trainer: Trainer,
    task: Any,
    data: IDCDataModule,
    table: pd.DataFrame,
    checkpoint: tuple[str, dict[str, Any]],
    started: float,
    extent: Extent,
) -> TestMetrics:
    """Evaluate the test part, and say where the results come from.

    Args:
        trainer: Ran the test.
        task: Holds the mean loss and the rows of the predictions.
        data: The data tested on.
        table: The predictions (see `run_folder.predictions_table`), in the order of the task's rows.
        checkpoint: Name and content of the tested file.
        started: `time.monotonic()` at the start of the test.
        extent: Number of patches that were run, and of all.

    Raises:
        InputError: The network gives logits that are not finite.
    """
    name, content = checkpoint
    tested = (table["part"] == "test").to_numpy()
    rows = task.predictions[0][tested]
    members = table[tested]
    logit = members["logit"].to_numpy()
    if not np.isfinite(logit).all():
        count = int((~np.isfinite(logit)).sum())
        raise InputError(f"{name}: {count} of {len(logit)} logits are not finite; train again at a lower learning rate")
    scores = Scores.of(members)
    stored = recorded_calibration(content)
    calibration = None if stored is None else StoredCalibration.model_validate(stored)
    # Baselines learn from the run's own training part: other data may not even have one.
    own = data_state(content).get("description") == data.description
    analysis = analyse(scores, calibration, _score_baselines(data, rows) if own else None)
    return TestMetrics(
        **dict(analysis),
        **dict(describe_provenance(data, name)),
        **describe_extent(extent),
        loss=float(task.computed["test"]["loss"]),
        network=task.hparams["network"],
        data_flow=describe_data_flow(data),
        exposure_known=data.seen_before is None or data.seen_before.known,
        leak_proof=prove_disjoint(data, rows),
        environment=describe_environment(trainer, started),
    )


def describe_extent(extent: Extent) -> dict[str, Any]:
    """Return the entries of a result file that say whether it is of all patches."""
    return {"whole": extent.evaluated == extent.patches, "extent": extent}


def describe_provenance(data: IDCDataModule, checkpoint: str) -> Provenance:
    """Say which data, split and checkpoint predictions come from."""
    description = data.description
    return Provenance(
        data=description.pop("name"),
        **description,
        leaks=data.split.unit == "patch",
        checkpoint=checkpoint,
        version=__version__,
    )


def map_activations(task: Any, data: IDCDataModule, rows: np.ndarray) -> np.ndarray | None:
    """Compute what each cell of some patches adds to the log-odds of IDC (see `class_activation`).

    Args:
        task: The task, with the tested weights.
        data: Where the patches are.
        rows: (K,) store rows, in any order.

    Returns:
        (K, h, w) float32; None where K is 0.
    """
    if not len(rows):
        return None
    order = np.argsort(rows)
    batches = data.batches(rows[order], task.device, ACTIVATION_BATCH)
    size = (task.image_size, task.image_size)
    images = (F.interpolate(batch["image"], size, mode="bilinear", antialias=True) for batch in batches)
    maps = torch.cat([class_activation(task.network, image) for image in images])
    return maps.float().cpu().numpy()[np.argsort(order)]


def _score_baselines(data: IDCDataModule, rows: np.ndarray) -> BaselineScores | None:
    label = data.store.index["label"].to_numpy()
    return score_baselines(data.store.gather, label, data.split.rows("train"), data.split.rows("validation"), rows)
