"""What neighbours change on cases that the correction was not fitted on, next to the patch-wise result."""

from collections.abc import Collection
from typing import Any, Literal

import numpy as np
import pandas as pd

from cancernet import __version__
from cancernet.errors import listing
from cancernet.evaluation.analysis import SETTINGS
from cancernet.evaluation.bootstrap import bootstrap, paired_difference
from cancernet.evaluation.calibration import sigmoid
from cancernet.evaluation.context.correction import RIDGE, correction, fit_correction, gather_neighbours
from cancernet.evaluation.metrics import FloatArray
from cancernet.evaluation.report.formatting import count, percent
from cancernet.evaluation.results import ContextCases, ContextResult, Origin, PerContextMetric, RingCoefficients
from cancernet.evaluation.values import Difference, Interval

METRICS = tuple(PerContextMetric.model_fields)
FEW = 10
"""Cases below which the words say how little that is."""


def evaluate_context(
    predictions: pd.DataFrame,
    origin: Origin,
    fitted: Collection[str],
    scored: Collection[str],
    neighbourhood: Literal[3, 5],
) -> tuple[pd.DataFrame, ContextResult]:
    """Fit on some cases, correct others, and evaluate these with and without their neighbours.

    Both are called by the threshold that validation chose; a patch without neighbours keeps its probability and call.

    Args:
        predictions: One row a patch.
        origin: What they come from.
        fitted: Cases to fit the correction on.
        scored: Cases to evaluate, none of the former.
        neighbourhood: Cells along a side, 3 or 5.

    Returns:
        The scored patches with the columns of `context.csv`, and the content of `context.json`.

    Raises:
        InputError: The cases to fit on have too few patches with neighbours.
    """
    table = predictions[predictions["case"].isin([*fitted, *scored])].reset_index(drop=True)
    to_fit = table["case"].isin(list(fitted)).to_numpy()
    temperature = 1.0 if origin.temperature is None else origin.temperature
    threshold = 0.5 if origin.threshold is None else origin.threshold
    patches, coefficients = _correct(table, to_fit, temperature, threshold, neighbourhood // 2)
    corrected = patches[~to_fit].reset_index(drop=True)
    fit, score = _describe_cases(table[to_fit], patches[to_fit]), _describe_cases(table[~to_fit], corrected)
    result = ContextResult(
        version=__version__,
        origin=origin,
        neighbourhood=neighbourhood,
        ridge=RIDGE,
        coefficients=[RingCoefficients(u=u, w=w) for u, w in coefficients.tolist()],
        fitted=fit,
        scored=score,
        threshold=threshold,
        intervals=SETTINGS,
        **_compare(corrected, threshold),
        words=describe(fit, score, neighbourhood, origin.threshold is not None),
    )
    return corrected, result


def describe(fitted: ContextCases, scored: ContextCases, side: int, calibrated: bool) -> list[str]:
    """Say what was fitted and scored on how many cases, and how little that is."""
    words = [
        f"Neighbourhoods of {side}x{side} patches, fitted on {_name(fitted)}: {fitted.with_neighbours:,} of "
        f"{count(fitted.patches, 'patch', 'patches')} have neighbours.",
        f"Scored on {_name(scored)}: {count(scored.patches, 'patch', 'patches')}, "
        f"{percent(scored.with_neighbours / scored.patches)} with neighbours.",
    ]
    if not scored.with_neighbours:
        words.append("No scored patch has a neighbour: nothing changes.")
    sizes = len(fitted.cases), len(scored.cases)
    if min(sizes) < FEW:
        words.append(
            f"Fitted on {count(sizes[0], 'case')} and scored on {sizes[1]}, this is little: it shows what happened to "
            "these cases, not what to expect of the next."
        )
    if sizes[1] < 2:
        words.append("Over one case no interval is defined.")
    if not calibrated:
        words.append("The checkpoint was not calibrated: the threshold is 0.5.")
    return words


def _correct(
    table: pd.DataFrame, to_fit: np.ndarray, temperature: float, threshold: float, rings: int
) -> tuple[pd.DataFrame, FloatArray]:
    """Fit the correction on some rows (N,) and apply it to all.

    Log-odds are divided by the temperature for the fit only: what comes out stands on the scale of the predictions, so
    that probabilities and thresholds can be compared.
    """
    logit = table["logit"].to_numpy(dtype=np.float64)
    scaled = logit / temperature
    found, total = gather_neighbours(scaled, table["case"], table["x"], table["y"], rings)
    boundary = _log_odds(threshold, logit) / temperature
    label = table["label"].to_numpy()
    coefficients = fit_correction(label[to_fit], scaled[to_fit], found[to_fit], total[to_fit], boundary)
    corrected = logit + temperature * correction(scaled, found, total, boundary, coefficients)
    columns = table[["case", "x", "y", "label", "logit"]].assign(
        probability=_probability(logit),
        context_logit=corrected,
        context_probability=_probability(corrected),
        neighbours=found.sum(axis=1).astype(np.int64),
    )
    return columns, coefficients


def _log_odds(threshold: float, logit: FloatArray) -> float:
    """Log-odds of a threshold, which may call all patches or none: then those of the outermost patch."""
    with np.errstate(divide="ignore"):
        odds = np.log(threshold) - np.log1p(-min(threshold, 1.0))
    return float(np.clip(odds, logit.min(), logit.max()))


def _probability(logit: FloatArray) -> np.ndarray:
    """In single precision, as everywhere a threshold is chosen or met."""
    return sigmoid(logit).astype(np.float32)


def _describe_cases(rows: pd.DataFrame, patches: pd.DataFrame) -> ContextCases:
    return ContextCases(
        cases=sorted(rows["case"].unique()),
        parts=sorted(rows["part"].unique()),
        patches=len(rows),
        idc=int(rows["label"].sum()),
        with_neighbours=int((patches["neighbours"] > 0).sum()),
    )


def _compare(patches: pd.DataFrame, threshold: float) -> dict[str, Any]:
    """Metrics of both, and context minus patch-wise on the same draws."""
    label, case = patches["label"].to_numpy(), patches["case"].to_numpy()
    plain, context = patches["probability"].to_numpy(), patches["context_probability"].to_numpy()
    patch_wise, with_context = (
        bootstrap(label, probability, case, threshold, metrics=METRICS) for probability in (plain, context)
    )
    difference = paired_difference(label, context, plain, case, threshold, threshold, metrics=METRICS)
    return {
        "patch_wise": PerContextMetric[Interval].model_validate(patch_wise),
        "context": PerContextMetric[Interval].model_validate(with_context),
        "difference": PerContextMetric[Difference].model_validate(difference),
    }


def _name(part: ContextCases) -> str:
    return f"{count(len(part.cases), 'case')} ({' and '.join(part.parts)}: {listing(part.cases)})"
