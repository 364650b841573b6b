"""What the page's script needs to evaluate any threshold exactly: the sorted scores of each case."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cancernet.evaluation.report.formatting import UNDEFINED
from cancernet.evaluation.results import Evaluation

STEPS = 200
"""Stops of the slider from even values, and as many from quantiles of the scores: either alone is coarse somewhere."""

UNMOVED = ("auroc", "brier", "patches", "prevalence")
"""Columns of the per-case table that no threshold moves."""


def payload(
    tested: pd.DataFrame, metrics: Evaluation, own: Mapping[str, float] | None, plots: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Everything the script is given, as plain numbers, strings and lists.

    Args:
        tested: Predictions of the test part.
        metrics: `metrics.json`, or what stands for it where runs are pooled.
        own: The validation threshold that applies to each case; None where none was chosen.
        plots: Where [0, 1] lies in each chart with something that moves: left, top, width, height.
    """
    probability = tested["probability"].to_numpy(dtype=np.float32)
    label = tested["label"].to_numpy()
    # Cases in the order of the per-case table; within a case first the benign scores, then those of IDC, rising.
    number = {str(row["case"]): at for at, row in enumerate(metrics["per_case"])}
    of_case = tested["case"].map(number).to_numpy(dtype=np.int64)
    order = np.lexsort((probability, label, of_case))
    counts = np.bincount(2 * of_case + label, minlength=2 * len(number)).reshape(-1, 2)
    calibration = metrics["calibration"]
    return {
        "scores": base64.b64encode(probability[order].astype("<f4").tobytes()).decode("ascii"),
        "cases": [
            [*classes, None if own is None else own[case]]
            for case, classes in zip(number, counts.tolist(), strict=True)
        ],
        "fixed": [{name: row[name] for name in UNMOVED} for row in metrics["per_case"]],
        "stops": stops(probability, stored_thresholds(metrics)),
        "start": start(metrics),
        "temperature": None if calibration is None else calibration["temperature"],
        "undefined": UNDEFINED,
        "plots": plots,
    }


def start(metrics: Evaluation) -> float | str:
    """Threshold the page opens with; `own` where each case has the threshold of its own fold."""
    chosen = metrics["at_validation_threshold"]
    if chosen is None:
        return 0.5
    return "own" if chosen["threshold"] is None else chosen["threshold"]


def stored_thresholds(metrics: Evaluation) -> list[float]:
    """Thresholds that `metrics.json` names: 0.5, validation's, the operating points'."""
    chosen = metrics["at_validation_threshold"]
    points = metrics["operating_points"] or []
    values = [0.5, None if chosen is None else chosen["threshold"], *(point["threshold"] for point in points)]
    return sorted({value for value in values if value is not None})


def stops(probability: np.ndarray, stored: Sequence[float]) -> list[float]:
    """Thresholds the slider stops at, rising from 0 to 1; the stored ones are among them, exactly."""
    even = np.arange(STEPS + 1) / STEPS
    quantiles = np.quantile(probability, even, method="nearest").astype(np.float64)
    return np.unique(np.concatenate([even, quantiles, np.asarray(stored, dtype=np.float64)])).tolist()
