"""Calibration of probabilities: temperature, reliability, slope and intercept.

``logit`` (N,) is the log-odds of IDC, any finite number: the difference of the two logits of a softmax, or the one of a
sigmoid. Intervals and bins here are over patches, which are not independent within a case: they describe
these patches, not the next patient.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, minimize
from scipy.special import expit, log_expit, ndtri

from cancernet.evaluation.estimates import estimates
from cancernet.evaluation.metrics import LOSSES, FloatArray, IntArray, checked, checked_labels
from cancernet.evaluation.values import CalibrationSummary, ReliabilityBin

TEMPERATURE_BOUNDS = (0.05, 20.0)
"""Range searched for the temperature; networks need 0.5 to 5."""

NORMAL_975 = float(ndtri(0.975))
"""97.5 % quantile of the standard normal distribution, for two-sided 95 % intervals."""
TIGHT = {"xtol": 1e-15, "rtol": 4 * float(np.finfo(np.float64).eps), "maxiter": 1000}
"""Options of the search for a root: as close as double precision allows."""


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature.

    ``bounded`` says that the optimum lies at or beyond an end of the range: the low end where the sign of the logit
    separates the classes, the high end where the logits say less than chance. ``log_loss_before`` and
    ``log_loss_after`` are means in nats.
    """

    value: float
    bounded: bool
    log_loss_before: float
    log_loss_after: float


@dataclass(frozen=True)
class Reliability:
    """Bins of about equal mass by rising probability, arrays of shape (B,), B at most the number asked for.

    ``low`` and ``high`` are the 95 % Wilson interval of ``observed``, the fraction of IDC among the ``count`` patches
    of a bin.
    """

    mean_predicted: FloatArray
    observed: FloatArray
    count: IntArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class Recalibration:
    """Logistic recalibration (Cox 1958): log-odds of IDC = intercept + slope x logit.

    Calibrated probabilities have slope 1 and intercept 0.
    ``intercept_in_the_large`` is the intercept with the slope held at 1. NaN where maximum likelihood has no finite
    answer: one class, or (slope and intercept only) a logit that separates the classes, at a tie or not, or is the
    same for all patches.
    """

    slope: float
    intercept: float
    intercept_in_the_large: float


def sigmoid(logit: ArrayLike) -> FloatArray:
    """Compute the probability of a log-odds, in double precision for logits of any precision.

    >>> sigmoid([0, 3]).round(3).tolist()
    [0.5, 0.953]
    """
    return expit(np.asarray(logit, dtype=np.float64))


def apply_temperature(logit: ArrayLike, temperature: float) -> FloatArray:
    """Compute the calibrated probability, the sigmoid of ``logit / temperature``.

    Raises:
        ValueError: If ``temperature`` is not a finite number above 0.

    >>> apply_temperature([0, 6], 2.0).round(3).tolist()
    [0.5, 0.953]
    """
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"Expected a finite temperature > 0, but got {temperature}.")
    return sigmoid(np.asarray(logit, dtype=np.float64) / temperature)


def fit_temperature(
    label: ArrayLike, logit: ArrayLike, bounds: tuple[float, float] = TEMPERATURE_BOUNDS
) -> Temperature:
    """Find the temperature of least log loss (Guo et al. 2017).

    The loss is convex in 1 / temperature: its rising derivative has one root. All logits 0 leave nothing to scale: 1.

    Raises:
        ValueError: If only one class is present, a logit is not finite, or ``bounds`` are not 0 < low <= 1 <= high.

    Examples:
        >>> round(fit_temperature([0, 1, 1, 0], [-2.0, 2.0, 2.0, 2.0]).value, 3)
        1.82
    """
    labels, logits = _checked_logits(label, logit)
    if not 0 < bounds[0] <= 1 <= bounds[1] < np.inf:
        raise ValueError(f"Expected bounds with 0 < low <= 1 <= high, but got {bounds}.")
    positives = int(labels.sum())
    if positives in (0, len(labels)):
        raise ValueError(
            f"A temperature needs both classes to be fitted on, but got {positives} IDC and {len(labels) - positives} "
            "benign patches: fit it on more cases."
        )
    before = log_loss_of_logit(labels, logits)
    if not logits.any():
        return Temperature(1.0, False, before, before)

    def derivative(inverse: float) -> float:
        return float(np.mean((sigmoid(logits * inverse) - labels) * logits))

    low, high = 1 / bounds[1], 1 / bounds[0]
    if derivative(high) <= 0:  # falls up to the end (0 where float64 runs out of small numbers)
        value, bounded = bounds[0], True
    elif derivative(low) >= 0:
        value, bounded = bounds[1], True
    else:
        value, bounded = 1 / brentq(derivative, low, high, **TIGHT), False
    return Temperature(float(value), bounded, before, log_loss_of_logit(labels, logits / value))


def log_loss_of_logit(label: ArrayLike, logit: ArrayLike) -> float:
    """Compute the mean negative log-likelihood in nats from logits, without clipping; NaN for empty input.

    >>> log_loss_of_logit([0, 1], [-1000.0, -1000.0])
    500.0
    """
    labels, logits = _checked_logits(label, logit)
    return float(-np.mean(log_expit(np.where(labels == 1, logits, -logits)))) if len(labels) else float("nan")


def reliability(label: ArrayLike, probability: ArrayLike, bins: int = 10) -> Reliability:
    """Compare predicted and observed frequency in bins of about equal mass.

    A patch falls into the bin of its middle rank, so equal probabilities share a bin; empty bins are dropped. Without
    ties bin sizes differ by at most one.

    Raises:
        ValueError: If ``bins`` < 1.

    >>> reliability([0, 1, 1, 1], [0.1, 0.1, 0.1, 0.8], bins=2).observed.round(3).tolist()
    [0.667, 1.0]
    """
    if bins < 1:
        raise ValueError(f"Expected bins >= 1, but got {bins}.")
    labels, probabilities = checked(label, probability)
    _, value, ties = np.unique(probabilities, return_inverse=True, return_counts=True)
    # Twice the middle rank of each distinct value is a whole number below 2 N: the floor is exact.
    doubled = 2 * np.cumsum(ties) - ties
    number = (doubled * bins // (2 * max(len(labels), 1)))[value]
    _, member = np.unique(number, return_inverse=True)
    count = np.bincount(member).astype(np.int64)
    hits = np.bincount(member, weights=labels)
    # Rounding must not carry a mean past the values it is a mean of.
    mean = np.clip(np.bincount(member, weights=probabilities) / count, 0.0, 1.0)
    low, high = wilson_interval(hits, count)
    return Reliability(mean, hits / count, count, low, high)


def wilson_interval(successes: ArrayLike, count: ArrayLike, z: float = NORMAL_975) -> tuple[FloatArray, FloatArray]:
    """Compute the Wilson score interval of a proportion (Wilson 1927), 95 % by default; [0, 1] for no trials.

    >>> [float(end.round(3)) for end in wilson_interval(3, 10)]
    [0.108, 0.603]
    """
    hits, trials = np.asarray(successes, dtype=np.float64), np.asarray(count, dtype=np.float64)
    width = trials + z**2
    centre = (hits + z**2 / 2) / width
    half = z * np.sqrt(hits * (1 - hits / np.maximum(trials, 1)) + z**2 / 4) / width
    # At 0 and at all successes an end is 0 or 1 exactly; rounding alone would miss it.
    low = np.where(hits == 0, 0.0, np.clip(centre - half, 0.0, 1.0))
    return low, np.where(hits == trials, 1.0, np.clip(centre + half, 0.0, 1.0))


def expected_calibration_error(bins: Reliability) -> float:
    """Average the distance of predicted and observed frequency over bins, weighted by their patches, in [0, 1].

    NaN without patches. It depends on the bins and hides the sign: never report it alone.

    >>> round(expected_calibration_error(reliability([0, 1, 1, 1], [0.1, 0.1, 0.1, 0.8], bins=2)), 3)
    0.475
    """
    total = int(bins.count.sum())
    return float(np.sum(bins.count * np.abs(bins.mean_predicted - bins.observed)) / total) if total else float("nan")


def recalibrate(label: ArrayLike, logit: ArrayLike) -> Recalibration:
    """Fit calibration slope, intercept and intercept in the large by maximum likelihood (see `Recalibration`).

    >>> fit = recalibrate([0, 0, 1, 0, 1, 1], [-2.0, -1.0, -1.0, 1.0, 1.0, 2.0])
    >>> round(fit.slope, 3), abs(round(fit.intercept, 3))
    (0.756, 0.0)
    """
    labels, logits = _checked_logits(label, logit)
    positive, negative = logits[labels == 1], logits[labels == 0]
    if not len(positive) or not len(negative):
        return Recalibration(float("nan"), float("nan"), float("nan"))
    fraction = len(positive) / len(labels)
    odds = np.log(fraction / (1 - fraction))
    # Shifts that put every patch below, or above, the observed fraction, and 1 against rounding.
    low, high = odds - logits.max() - 1, odds - logits.min() + 1
    in_the_large = brentq(lambda shift: np.mean(sigmoid(logits + shift)) - fraction, low, high, **TIGHT)
    # With one covariate the likelihood has a maximum exactly where the classes overlap (Albert and Anderson 1984).
    if negative.max() <= positive.min() or positive.max() <= negative.min():
        return Recalibration(float("nan"), float("nan"), in_the_large)
    centre, scale = float(logits.mean()), float(logits.std())
    design = np.stack([np.ones_like(logits), (logits - centre) / scale], axis=1)
    intercept, slope = logistic_regression(labels, design, start=np.array([odds, 0.0])).tolist()
    return Recalibration(slope / scale, intercept - slope * centre / scale, in_the_large)


def calibration_summary(
    label: ArrayLike, logit: ArrayLike, temperature: float = 1.0, bins: int = 10
) -> CalibrationSummary:
    """Summarise the calibration of ``logit / temperature``.

    Examples:
        >>> summary = calibration_summary([0, 0, 1, 0, 1, 1], [-2.0, -1.0, -1.0, 1.0, 1.0, 2.0])
        >>> round(summary.slope, 3), len(summary.reliability)
        (0.756, 4)
    """
    probability = apply_temperature(logit, temperature)
    fit = recalibrate(label, np.asarray(logit, dtype=np.float64) / temperature)
    table = reliability(label, probability, bins)
    rows = zip(*vars(table).values(), strict=True)
    return CalibrationSummary(
        temperature=temperature,
        **estimates(label, probability, metrics=LOSSES),
        **vars(fit),
        expected_calibration_error=expected_calibration_error(table),
        reliability=[ReliabilityBin(**dict(zip(vars(table), row, strict=True))) for row in rows],
    )


def _checked_logits(label: ArrayLike, logit: ArrayLike) -> tuple[IntArray, FloatArray]:
    labels, logits = checked_labels(label), np.asarray(logit, dtype=np.float64)
    if logits.shape != labels.shape:
        raise ValueError(f"Expected logit of shape {labels.shape} like label, but got {logits.shape}.")
    if not np.isfinite(logits).all():
        raise ValueError(f"Expected finite logits, but got {logits[~np.isfinite(logits)][0]}.")
    return labels, logits


def logistic_regression(
    labels: IntArray, design: FloatArray, start: FloatArray, offset: FloatArray | float = 0.0, ridge: float = 0.0
) -> FloatArray:
    """Fit the coefficients of least penalised log loss.

    Args:
        labels: (N,) of 0 and 1.
        design: (N, K) of a scale near 1. Without a ridge the classes must overlap in it, so that the minimum is finite.
        start: (K,) where to begin.
        offset: (N,) log-odds that no coefficient weighs.
        ridge: Weight of half the sum of the squared coefficients, added to the log loss summed over patches in nats.

    Returns:
        (K,) coefficients; the log-odds are offset + design @ coefficients.

    >>> logistic_regression(np.array([0, 0, 0, 1]), np.ones((4, 1)), np.zeros(1)).round(3)  # log(1 / 3)
    array([-1.099])
    """
    sign = 2 * labels - 1

    def loss(coefficients: FloatArray) -> float:
        likelihood = np.sum(log_expit(sign * (offset + design @ coefficients)))
        return float(ridge / 2 * coefficients @ coefficients - likelihood)

    def gradient(coefficients: FloatArray) -> FloatArray:
        return design.T @ (sigmoid(offset + design @ coefficients) - labels) + ridge * coefficients

    def curvature(coefficients: FloatArray) -> FloatArray:
        probability = sigmoid(offset + design @ coefficients)
        return (design.T * (probability * (1 - probability))) @ design + ridge * np.eye(len(coefficients))

    near = minimize(loss, start, method="trust-exact", jac=gradient, hess=curvature, options={"gtol": 1e-9}).x
    # The loss is flat where the search ends: one more step of Newton's method gives the last digits.
    return near - np.linalg.lstsq(curvature(near), gradient(near))[0]
