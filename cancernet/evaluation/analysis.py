"""Choose thresholds on validation scores and evaluate test scores, as `metrics.json` has it.

Thresholds, ranks and rates see the probability in single precision, as the files of predictions have it, so that a
threshold means the same patches everywhere. Brier score and log loss take it in double precision from the logit: in
single precision it is 1 from a logit of 17 on, which would double the cost of a confident mistake.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cancernet.evaluation.bootstrap import (
    DRAWS,
    LEVEL,
    bootstrap,
    bootstrap_case_mean,
    paired_difference,
)
from cancernet.evaluation.calibration import calibration_summary, fit_temperature, sigmoid
from cancernet.evaluation.estimates import estimates
from cancernet.evaluation.idc_share import share_agreement
from cancernet.evaluation.metrics import LOSSES, METRICS, RANKS, RATES, FloatArray, confusion, rates
from cancernet.evaluation.per_case import case_summary, per_case, worst_tenth
from cancernet.evaluation.results import Analysis, StoredCalibration, StoredPoint
from cancernet.evaluation.thresholds import operating_points, youden
from cancernet.evaluation.values import (
    AtThreshold,
    Baselines,
    Bootstrap,
    BothIntervals,
    BothRates,
    CalibrationResult,
    CaseMetrics,
    ColourHistogram,
    Difference,
    Figures,
    FourRates,
    Interval,
    Intervals,
    PerMetric,
    TestedPoint,
)

SETTINGS = Bootstrap(level=LEVEL, draws=DRAWS, seed=0, unit="case")
"""The same seed for all, so that models and runs are compared on the same draws of cases."""


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

    @classmethod
    def of(cls, table: pd.DataFrame) -> "Scores":
        """Take label, logit and case of a table of predictions."""
        return cls(table["label"].to_numpy(), table["logit"].to_numpy(), table["case"].to_numpy(dtype=object))

    @cached_property
    def exact(self) -> FloatArray:
        """Probability of IDC in double precision, (N,)."""
        return sigmoid(self.logit)

    @cached_property
    def probability(self) -> NDArray[np.float32]:
        """Probability of IDC in single precision, (N,)."""
        return self.exact.astype(np.float32)

    def called(self, threshold: float | FloatArray) -> FloatArray:
        """Calls (N,) of 0.0 and 1.0 at a threshold, or at (N,) thresholds, compared in double precision."""
        return (self.probability.astype(np.float64) >= threshold).astype(np.float64)


@dataclass(frozen=True)
class BaselineScores:
    """What the baselines say of the test patches.

    Attributes:
        prevalence: Share of IDC in training, above 0 and below 1: the first baseline's answer for every patch.
        logit: (N,) float64, log-odds of IDC by the colour histogram.
        threshold: Youden's, of the colour histogram on validation; None where that part lacks a class.
    """

    prevalence: float
    logit: NDArray[np.float64]
    threshold: float | None


def fit_calibration(scores: Scores) -> StoredCalibration:
    """Choose threshold (Youden), operating points and temperature on validation patches.

    Raises:
        ValueError: One class only, or a logit that is not finite.
    """
    temperature = fit_temperature(scores.label, scores.logit)
    threshold = youden(scores.label, scores.probability)
    return StoredCalibration(
        threshold=threshold,
        temperature=temperature.value,
        bounded=temperature.bounded,
        operating_points=operating_points(scores.label, scores.probability),
        **estimates(scores.label, scores.probability, threshold, (*RANKS, "balanced_accuracy")),
        patches=len(scores.label),
        cases=len(np.unique(scores.case)),
    )


def analyse(
    scores: Scores,
    calibration: StoredCalibration | None = None,
    baseline: BaselineScores | None = None,
    draws: int = DRAWS,
) -> Analysis:
    """Evaluate the patches of a test part.

    Args:
        scores: Of the test patches.
        calibration: What `fit_calibration` chose on validation, where the model was calibrated.
        baseline: Scores of the baselines, trained on the same split, for the same patches.
        draws: Resamples of the cases.

    Raises:
        ValueError: A logit is not finite.
    """
    settings = SETTINGS.model_copy(update={"draws": draws})
    points = None if calibration is None else [evaluate_point(scores, point) for point in calibration.operating_points]
    chosen = None if calibration is None else calibration.threshold
    rows = per_case(scores.label, scores.probability, scores.case, 0.5 if chosen is None else chosen, scores.exact)
    return summarise(
        scores,
        chosen,
        rows,
        settings,
        operating_points=points,
        calibration=None if calibration is None else _test_calibration(scores, calibration),
        baselines=None if baseline is None else _baselines(scores, baseline, chosen, settings),
    )


def summarise(
    scores: Scores, chosen: float | FloatArray | None, rows: list[CaseMetrics], settings: Bootstrap, **others: Any
) -> Analysis:
    """Join what follows from scores, the chosen threshold (or one for each patch) and cases with other entries."""
    return Analysis(
        **dict(figures(scores)),
        prevalence=float(np.mean(scores.label)),
        patches=len(scores.label),
        cases=len(rows),
        part="test",
        at_validation_threshold=None if chosen is None else rates_at(scores, chosen),
        intervals=_intervals(scores, chosen, rows, settings),
        per_case=rows,
        case_summary=case_summary(rows),
        worst_tenth=[row.case for row in worst_tenth(rows)],
        idc_share=share_agreement(rows, settings),
        **others,
    )


def figures(scores: Scores) -> Figures:
    """Compute all metrics, the rates at 0.5.

    >>> figures(Scores(np.array([0, 1, 1]), np.array([-2.0, 1.0, -1.0]), np.array(["a", "a", "b"]))).sensitivity
    0.5
    """
    ranks = estimates(scores.label, scores.probability, metrics=RANKS)
    losses = estimates(scores.label, scores.exact, metrics=LOSSES)
    return Figures.model_validate({**ranks, **losses, **dict(rates_at(scores, 0.5))})


def rates_at(scores: Scores, threshold: float | FloatArray) -> AtThreshold:
    """Compute confusion matrix and rates at a threshold, or at a threshold (N,) for each patch (recorded as None).

    >>> rates_at(Scores(np.array([0, 1]), np.array([-2.0, 1.0]), np.array(["a", "b"])), 0.9).confusion_matrix
    ((1, 0), (1, 0))
    """
    counts = confusion(scores.label, scores.called(threshold))
    values = rates(counts)
    return AtThreshold(
        threshold=threshold if isinstance(threshold, float) else None,
        confusion_matrix=counts.matrix,
        **{name: values[name] for name in RATES},
    )


def evaluate_point(scores: Scores, point: StoredPoint) -> TestedPoint:
    """Read the rates at an operating point off the test patches."""
    return TestedPoint(
        name=point.name,
        fixed=point.fixed,
        target=point.target,
        threshold=point.threshold,
        validation=BothRates.model_validate(point),
        test=FourRates.model_validate(rates_at(scores, point.threshold)),
    )


def _intervals(
    scores: Scores, chosen: float | FloatArray | None, rows: list[CaseMetrics], settings: Bootstrap
) -> Intervals:
    """Resample cases for intervals at both thresholds, and of means over cases."""
    columns = {name: np.array([getattr(row, name) for row in rows], dtype=np.float64) for name in METRICS}  # None: NaN
    means = {name: bootstrap_case_mean(values, **_arguments(settings)) for name, values in columns.items()}
    both = _both_intervals(scores, chosen, settings)
    return Intervals(**dict(settings), **dict(both), case_mean=PerMetric[Interval].model_validate(means))


def differences_of(
    a: Scores, b: Scores, threshold_a: float, threshold_b: float, settings: Bootstrap
) -> PerMetric[Difference]:
    """Metrics of a minus those of b on the same patches, paired by draw of cases."""
    differences = paired_difference(
        a.label,
        a.probability,
        b.probability,
        a.case,
        threshold_a,
        threshold_b,
        metrics=RANKS + RATES,
        **_arguments(settings),
    ) | paired_difference(a.label, a.exact, b.exact, a.case, metrics=LOSSES, **_arguments(settings))
    return PerMetric[Difference].model_validate(differences)


def _arguments(settings: Bootstrap) -> dict[str, Any]:
    """Settings as arguments of the functions in `bootstrap`."""
    return settings.model_dump(include={"draws", "seed", "level"})


def _both_intervals(scores: Scores, chosen: float | FloatArray | None, settings: Bootstrap) -> BothIntervals:
    """Intervals at 0.5 and at the chosen threshold."""

    def resample(probability: np.ndarray, metrics: tuple[str, ...]) -> dict[str, object]:
        return dict(bootstrap(scores.label, probability, scores.case, metrics=metrics, **_arguments(settings)))

    fixed = resample(scores.probability, RANKS + RATES) | resample(scores.exact, LOSSES)
    at_chosen = None if chosen is None else fixed | resample(scores.called(chosen), RATES)
    return BothIntervals.model_validate({"at_threshold": fixed, "at_validation_threshold": at_chosen})


def _test_calibration(scores: Scores, calibration: StoredCalibration) -> CalibrationResult:
    return CalibrationResult(
        temperature=calibration.temperature,
        bounded=calibration.bounded,
        before=calibration_summary(scores.label, scores.logit),
        after=calibration_summary(scores.label, scores.logit, calibration.temperature),
    )


def _baselines(scores: Scores, baseline: BaselineScores, chosen: float | None, settings: Bootstrap) -> Baselines:
    """Evaluate each baseline as the model is evaluated; the difference is the model minus the baseline."""
    odds = np.full(len(scores.label), np.log(baseline.prevalence / (1 - baseline.prevalence)))
    constant, colours = replace(scores, logit=odds), replace(scores, logit=baseline.logit)
    # Each at its own threshold from validation, or both at 0.5.
    both = (0.5, 0.5) if chosen is None or baseline.threshold is None else (chosen, baseline.threshold)
    return Baselines(
        prevalence=figures(constant),
        colour_histogram=ColourHistogram(
            **dict(figures(colours)),
            at_validation_threshold=None if baseline.threshold is None else rates_at(colours, baseline.threshold),
            intervals=_both_intervals(colours, baseline.threshold, settings),
            difference=differences_of(scores, colours, *both, settings),
        ),
    )
