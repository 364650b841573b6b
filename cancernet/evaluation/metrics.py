"""Names of the metrics, counts, rates and curves of a two-class prediction, as pure functions of arrays.

The positive class is IDC = 1. Arrays have one entry a patch: ``label`` (N,) holds 0 or 1, ``probability`` (N,) lies in
[0, 1], ``case`` (N,) holds any hashable names. A patch is called positive where ``probability >= threshold``.

A quotient 0 / 0 is NaN, never a conventional 0 or 1. So AUROC and balanced accuracy need both classes, sensitivity and
average precision need a positive patch, precision needs a positive call, MCC needs both classes among the labels and
among the calls, F1 needs a positive label or a positive call. Empty input gives NaN everywhere.
"""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

RANKS = ("auroc", "average_precision")
RATES = ("balanced_accuracy", "accuracy", "sensitivity", "specificity", "precision", "npv", "f1", "mcc")
"""Metrics that depend on the threshold."""
LOSSES = ("brier", "log_loss")
LOWER_IS_BETTER = LOSSES
THRESHOLD_FREE = RANKS + LOSSES
METRICS = RANKS + RATES + LOSSES
"""Metrics with intervals, in the order of the results."""


class Confusion(NamedTuple):
    """Counts of patches at one threshold, in scikit-learn's order of ``confusion_matrix(...).ravel()``."""

    tn: int
    fp: int
    fn: int
    tp: int

    @property
    def matrix(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """The counts as ((tn, fp), (fn, tp)), rows true."""
        return (self.tn, self.fp), (self.fn, self.tp)


class ThresholdCounts(NamedTuple):
    """True and false positives as the threshold falls through the M distinct probabilities, each (M,)."""

    threshold: FloatArray
    tp: IntArray
    fp: IntArray


class RocCurve(NamedTuple):
    """Points of the ROC curve from (0, 0) to (1, 1); the first threshold is infinite: nothing is called positive."""

    false_positive_rate: FloatArray
    sensitivity: FloatArray
    threshold: FloatArray


class PrecisionRecallCurve(NamedTuple):
    """Points of the curve by rising recall; it starts, by convention, at (0, 1) with an infinite threshold."""

    recall: FloatArray
    precision: FloatArray
    threshold: FloatArray


def checked_labels(label: ArrayLike) -> IntArray:
    """Return labels as int64 of shape (N,).

    Raises:
        ValueError: If the array is not one-dimensional or holds anything but 0 and 1.
    """
    array = np.asarray(label)
    if array.ndim != 1:
        raise ValueError(f"Expected label of shape (N,), but got shape {array.shape}.")
    if not np.all((array == 0) | (array == 1)):
        raise ValueError(
            f"Expected label to hold 0 (benign) and 1 (IDC) only, but got {np.unique(array)[:5].tolist()}."
        )
    return array.astype(np.int64)


def checked(label: ArrayLike, probability: ArrayLike) -> tuple[IntArray, FloatArray]:
    """Return labels as int64 and probabilities as float64, both (N,).

    Raises:
        ValueError: If shapes differ, a label is neither 0 nor 1, or a probability is not a number in [0, 1].
    """
    labels, probabilities = checked_labels(label), np.asarray(probability, dtype=np.float64)
    if probabilities.shape != labels.shape:
        raise ValueError(f"Expected probability of shape {labels.shape} like label, but got {probabilities.shape}.")
    outside = ~((probabilities >= 0) & (probabilities <= 1))  # written so that NaN counts as outside
    if outside.any():
        raise ValueError(f"Expected probability in [0, 1], but got {probabilities[outside][0]} (a logit?).")
    return labels, probabilities


def case_index(case: ArrayLike) -> tuple[list[Any], NDArray[np.intp]]:
    """Number the cases.

    Returns:
        Their names in sorted order, as plain Python values, and each patch's index into them, (N,).

    >>> names, index = case_index(["b", "a", "b"])
    >>> names, index.tolist()
    (['a', 'b'], [1, 0, 1])
    """
    array = np.asarray(case)
    if array.ndim != 1:
        raise ValueError(f"Expected case of shape (N,), but got shape {array.shape}.")
    index, names = pd.factorize(array, sort=True)  # which orders an object array of mixed types too
    return names.tolist(), index


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> FloatArray:
    """Divide elementwise; NaN where the denominator is 0.

    >>> ratio([1, 0], [2, 0]).tolist()
    [0.5, nan]
    """
    top, bottom = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    return np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom != 0)


def confusion(label: ArrayLike, probability: ArrayLike, threshold: float = 0.5) -> Confusion:
    """Count true and false calls; positive where ``probability >= threshold``.

    >>> confusion([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9])
    Confusion(tn=1, fp=1, fn=0, tp=2)
    """
    labels, probabilities = checked(label, probability)
    tn, fp, fn, tp = np.bincount(2 * labels + (probabilities >= threshold), minlength=4).tolist()
    return Confusion(tn, fp, fn, tp)


def rate_arrays(tn: FloatArray, fp: FloatArray, fn: FloatArray, tp: FloatArray) -> dict[str, FloatArray]:
    """Compute the rates of many confusion matrices: counts of one shape in, arrays of that shape out (see `rates`).

    >>> counts = (np.array([8.0, 0.0]), np.array([2.0, 0.0]), np.array([1.0, 4.0]), np.array([3.0, 0.0]))
    >>> rate_arrays(*counts)["specificity"].tolist()
    [0.8, nan]
    """
    patches, positives, negatives, called = tn + fp + fn + tp, tp + fn, tn + fp, tp + fp
    sensitivity, specificity = ratio(tp, positives), ratio(tn, negatives)
    margins = np.sqrt(positives) * np.sqrt(negatives) * np.sqrt(called) * np.sqrt(tn + fn)
    return {
        "accuracy": ratio(tp + tn, patches),
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "precision": ratio(tp, called),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "npv": ratio(tn, tn + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": np.clip(ratio(tp * tn - fp * fn, margins), -1.0, 1.0),  # the roots round
        "prevalence": ratio(positives, patches),
    }


def rates(confusion: Confusion) -> dict[str, float]:
    """Compute the rates of one confusion matrix (those of `RATES` and ``prevalence``), NaN where undefined.

    >>> rates(Confusion(tn=8, fp=2, fn=1, tp=3))["sensitivity"]
    0.75
    """
    tn, fp, fn, tp = (np.asarray(count, dtype=np.float64) for count in confusion)
    return {name: float(value) for name, value in rate_arrays(tn, fp, fn, tp).items()}


def counts_by_threshold(label: ArrayLike, probability: ArrayLike) -> ThresholdCounts:
    """Count true and false positives at each distinct probability, from the highest down: ties are one step.

    >>> counts = counts_by_threshold([0, 1, 1], [0.2, 0.9, 0.2])
    >>> counts.threshold.tolist(), counts.tp.tolist(), counts.fp.tolist()
    ([0.9, 0.2], [1, 2], [0, 1])
    """
    labels, probabilities = checked(label, probability)
    threshold, step = np.unique(-probabilities, return_inverse=True)
    tp, fp = (np.cumsum(np.bincount(step[labels == value], minlength=len(threshold))) for value in (1, 0))
    return ThresholdCounts(-threshold, tp, fp)


def log_losses(labels: IntArray, probabilities: FloatArray) -> FloatArray:
    """Compute the negative log-likelihood of each patch in nats, (N,): at most 36.04, probabilities being clipped.

    They are clipped to [2.2e-16, 1 - 2.2e-16], as scikit-learn does.

    >>> log_losses(np.array([0, 1]), np.array([0.5, 0.25])).round(3).tolist()
    [0.693, 1.386]
    """
    edge = float(np.finfo(np.float64).eps)
    return -np.log(np.clip(np.where(labels == 1, probabilities, 1 - probabilities), edge, 1 - edge))


def roc_curve(label: ArrayLike, probability: ArrayLike, points: int | None = None) -> RocCurve:
    """Compute the ROC curve at each distinct probability, or at most ``points`` of its points for a picture.

    >>> roc_curve([0, 1, 1], [0.2, 0.9, 0.2]).sensitivity.tolist()
    [0.0, 0.5, 1.0]
    """
    threshold, tp, fp = counts_by_threshold(label, probability)
    tp, fp = np.append(0, tp), np.append(0, fp)
    return RocCurve(*_thin(points, ratio(fp, fp[-1]), ratio(tp, tp[-1]), np.append(np.inf, threshold)))


def precision_recall_curve(label: ArrayLike, probability: ArrayLike, points: int | None = None) -> PrecisionRecallCurve:
    """Compute precision and recall at each distinct probability, or at most ``points`` of these points.

    >>> precision_recall_curve([0, 1, 1], [0.2, 0.9, 0.2]).precision.round(3).tolist()
    [1.0, 1.0, 0.667]
    """
    threshold, tp, fp = counts_by_threshold(label, probability)
    precision = np.append(1.0, ratio(tp, tp + fp))
    tp = np.append(0, tp)
    return PrecisionRecallCurve(*_thin(points, ratio(tp, tp[-1]), precision, np.append(np.inf, threshold)))


def _thin(points: int | None, x: FloatArray, y: FloatArray, threshold: FloatArray) -> tuple[FloatArray, ...]:
    """Keep at most ``points`` points spread evenly along the curve, with both ends and the extremes of y among them.

    Raises:
        ValueError: If ``points`` < 4, the number of extreme points.
    """
    if points is not None and points < 4:
        raise ValueError(f"Expected points >= 4 (both ends, highest and lowest), but got {points}.")
    if points is None or len(x) <= points:
        return x, y, threshold
    # A curve without one of the classes is NaN along an axis: that axis has no length.
    steps = np.nan_to_num(np.abs(np.diff(x))) + np.nan_to_num(np.abs(np.diff(y)))
    along = np.append(0.0, np.cumsum(steps))
    spread = np.searchsorted(along, np.linspace(0.0, along[-1], points - 2)).clip(max=len(x) - 1)
    height = np.nan_to_num(y)
    # Both ends explicitly: the last threshold may lie on a flat stretch that the even spread does not reach.
    extremes = [0, len(x) - 1, int(np.argmax(height)), int(np.argmin(height))]
    kept = np.unique(np.append(extremes, spread[1:-1]))
    return x[kept], y[kept], threshold[kept]
