"""Everything that `metrics.json` says of judged patches beyond the headline of torchmetrics, from arrays.

Thresholds, ranks and rates see the probability in single precision, as torchmetrics and the files of predictions have
it, so that a threshold means the same patches everywhere. Brier score and log loss take it in double precision from
the logit: in single precision it is 1 from a logit of 17 on, and a confident mistake would cost twice what it does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cancernet.evaluation.baselines import BaselineScores
from cancernet.evaluation.bootstrap import (
    DRAWS,
    LEVEL,
    Interval,
    bootstrap,
    bootstrap_case_mean,
    paired_difference,
)
from cancernet.evaluation.calibration import calibration_summary, fit_temperature, sigmoid
from cancernet.evaluation.metrics import (
    METRICS,
    Confusion,
    FloatArray,
    auroc,
    average_precision,
    brier,
    case_summary,
    confusion,
    log_loss,
    per_case,
    rates,
    worst_tenth,
)
from cancernet.evaluation.thresholds import operating_points, youden

LOSSES = ("brier", "log_loss")
RANKS = ("auroc", "average_precision")
RATES = tuple(name for name in METRICS if name not in LOSSES + RANKS)
"""What depends on the threshold."""
SEED = 0
"""Seed of the draws of cases: the same for all, so that models and runs are compared on the same draws."""


@dataclass(frozen=True)
class Scores:
    """What a model says of patches whose label is known.

    Attributes:
        label: (N,) of 0 (benign) and 1 (IDC).
        logit: (N,) log-odds of IDC, finite.
        case: (N,) names of the cases.
    """

    label: np.ndarray
    logit: np.ndarray
    case: np.ndarray

    @cached_property
    def exact(self) -> FloatArray:
        """Probability of IDC in double precision, (N,)."""
        return sigmoid(self.logit)

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """Probability of IDC in single precision, (N,)."""
        return self.exact.astype(np.float32)


def fit_calibration(scores: Scores) -> dict[str, Any]:
    """Choose threshold (Youden), operating points and temperature on validation patches.

    Returns:
        `threshold`, `temperature`, `bounded`, `operating_points` (list of `name`, `fixed`, `target`, `threshold`,
        `sensitivity`, `specificity`), `auroc`, `average_precision`, `balanced_accuracy` (at the threshold), `patches`,
        `cases`: plain numbers, strings and lists, as a checkpoint holds them.

    Raises:
        ValueError: One class only, or a logit that is not finite.
    """
    temperature = fit_temperature(scores.label, scores.logit)
    threshold = youden(scores.label, scores.probability)
    return {
        "threshold": threshold,
        "temperature": temperature.value,
        "bounded": temperature.bounded,
        "operating_points": [
            {"name": point.name, **asdict(point)} for point in operating_points(scores.label, scores.probability)
        ],
        **_ranks(scores),
        "balanced_accuracy": _at(scores, threshold)["balanced_accuracy"],
        "patches": len(scores.label),
        "cases": len(np.unique(scores.case)),
    }


def analyse(
    scores: Scores,
    calibration: Mapping[str, Any] | None = None,
    baseline: BaselineScores | None = None,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Judge the patches of a test part.

    Args:
        scores: The judged patches.
        calibration: What `fit_calibration` chose on validation, where the model was calibrated.
        baseline: What the baselines, trained on the same split, say of the same patches.
        draws: Resamples of the cases.

    Returns:
        The entries of `metrics.json` from `brier` to `baselines` (see `metrics.schema.json`); NaN where undefined.

    Raises:
        ValueError: A logit is not finite.
    """
    chosen = None if calibration is None else float(calibration["threshold"])
    rows = _case_rows(scores, 0.5 if chosen is None else chosen)
    at_threshold, at_chosen = _intervals(scores, chosen, draws)
    return {
        **_losses(scores),
        "at_validation_threshold": None if chosen is None else _at(scores, chosen),
        "operating_points": None if calibration is None else _judge_points(scores, calibration["operating_points"]),
        "calibration": None if calibration is None else _judge_calibration(scores, calibration),
        "intervals": {
            "level": LEVEL,
            "draws": draws,
            "seed": SEED,
            "unit": "case",
            "at_threshold": at_threshold,
            "at_validation_threshold": at_chosen,
            "case_mean": _case_means(rows, draws),
        },
        "per_case": rows,
        "case_summary": case_summary(rows),
        "worst_tenth": [row["case"] for row in worst_tenth(rows)],
        "baselines": None if baseline is None else _judge_baselines(scores, baseline, chosen, draws),
    }


def rates_of(matrix: Sequence[Sequence[int]]) -> dict[str, float]:
    """Rates of a confusion matrix [[tn, fp], [fn, tp]], NaN where undefined (see `statistics.rates`)."""
    (tn, fp), (fn, tp) = matrix
    return rates(Confusion(tn, fp, fn, tp))


def _at(scores: Scores, threshold: float) -> dict[str, Any]:
    """Confusion matrix and rates at one threshold."""
    counts = confusion(scores.label, scores.probability, threshold)
    values = rates(counts)
    matrix = [[counts.tn, counts.fp], [counts.fn, counts.tp]]
    return {"threshold": threshold, "confusion_matrix": matrix, **{name: values[name] for name in RATES}}


def _ranks(scores: Scores) -> dict[str, float]:
    return {
        "auroc": auroc(scores.label, scores.probability),
        "average_precision": average_precision(scores.label, scores.probability),
    }


def _losses(scores: Scores) -> dict[str, float]:
    return {"brier": brier(scores.label, scores.exact), "log_loss": log_loss(scores.label, scores.exact)}


def _case_rows(scores: Scores, threshold: float) -> list[dict[str, Any]]:
    """Rows of `per_case`, the losses in double precision."""
    rows = per_case(scores.label, scores.probability, scores.case, threshold)
    exact = per_case(scores.label, scores.exact, scores.case, threshold)
    return [{**row, **{name: more[name] for name in LOSSES}} for row, more in zip(rows, exact, strict=True)]


def _case_means(rows: list[dict[str, Any]], draws: int) -> dict[str, dict[str, Any]]:
    columns = {name: [np.nan if row[name] is None else row[name] for row in rows] for name in METRICS}
    return {name: asdict(bootstrap_case_mean(values, draws=draws, seed=SEED)) for name, values in columns.items()}


def _intervals(
    scores: Scores, chosen: float | None, draws: int
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]] | None]:
    """Intervals of all `METRICS` at 0.5 and at the chosen threshold; only the rates are drawn for both."""

    def draw(probability: np.ndarray, threshold: float, metrics: Sequence[str]) -> dict[str, Interval]:
        return bootstrap(scores.label, probability, scores.case, threshold, draws=draws, seed=SEED, metrics=metrics)

    fixed = draw(scores.probability, 0.5, RANKS + RATES) | draw(scores.exact, 0.5, LOSSES)
    first = {name: asdict(fixed[name]) for name in METRICS}
    if chosen is None:
        return first, None
    return first, first | {name: asdict(value) for name, value in draw(scores.probability, chosen, RATES).items()}


def _judge_points(scores: Scores, points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    judged = []
    for point in points:
        values = _at(scores, point["threshold"])
        judged.append(
            {
                **{name: point[name] for name in ("name", "fixed", "target", "threshold")},
                "validation": {name: point[name] for name in ("sensitivity", "specificity")},
                "test": {name: values[name] for name in ("sensitivity", "specificity", "precision", "npv")},
            }
        )
    return judged


def _judge_calibration(scores: Scores, calibration: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "temperature": calibration["temperature"],
        "bounded": calibration["bounded"],
        "before": calibration_summary(scores.label, scores.logit),
        "after": calibration_summary(scores.label, scores.logit, calibration["temperature"]),
    }


def _judge_baselines(scores: Scores, baseline: BaselineScores, chosen: float | None, draws: int) -> dict[str, Any]:
    """Judge each baseline as the model is judged; the difference is the model less the baseline, paired by draw."""
    odds = np.full(len(scores.label), np.log(baseline.prevalence / (1 - baseline.prevalence)))
    constant, colours = replace(scores, logit=odds), replace(scores, logit=baseline.logit)
    at_threshold, at_chosen = _intervals(colours, baseline.threshold, draws)
    return {
        "prevalence": {**_ranks(constant), **_at(constant, 0.5), **_losses(constant)},
        "colour_histogram": {
            **_ranks(colours),
            **_at(colours, 0.5),
            **_losses(colours),
            "at_validation_threshold": None if baseline.threshold is None else _at(colours, baseline.threshold),
            "intervals": {"at_threshold": at_threshold, "at_validation_threshold": at_chosen},
            "difference": _differences(scores, colours, chosen, baseline.threshold, draws),
        },
    }


def _differences(
    model: Scores, baseline: Scores, chosen: float | None, chosen_of_baseline: float | None, draws: int
) -> dict[str, dict[str, Any]]:
    """Paired differences; the rates each at its own threshold of validation where both have one, else at 0.5."""
    if chosen is None or chosen_of_baseline is None:
        chosen = chosen_of_baseline = 0.5
    shared = {"draws": draws, "seed": SEED}
    differences = paired_difference(
        model.label,
        model.probability,
        baseline.probability,
        model.case,
        chosen,
        chosen_of_baseline,
        metrics=RANKS + RATES,
        **shared,
    ) | paired_difference(model.label, model.exact, baseline.exact, model.case, metrics=LOSSES, **shared)
    return {name: asdict(differences[name]) for name in METRICS}
