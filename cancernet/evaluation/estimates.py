"""Metrics of patches, and of patches whose cases count several times or not at all.

A draw is a vector w of how often each case counts. Each metric is computed exactly from it:

- rates, Brier score and log loss from sums per case;
- AUROC from U[i, j], the pairs (IDC of case i, benign of case j) ranked right: w' U w over the number of pairs;
- average precision from one sort of all patches, with running counts weighted by w.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cancernet.evaluation.metrics import METRICS, FloatArray, IntArray, checked, log_losses, rate_arrays, ratio

CELLS_AT_ONCE = 2**18
"""Draws x patches held at once for average precision: 1 to 2 MB an array, which fits the processor's cache."""


def estimates(
    label: ArrayLike, probability: ArrayLike, threshold: float = 0.5, metrics: Sequence[str] = METRICS
) -> dict[str, float]:
    """Compute metrics of all patches, NaN where undefined.

    >>> estimates([0, 1, 0, 1], [0.1, 0.8, 0.6, 0.4], metrics=["auroc", "sensitivity"])
    {'auroc': 0.75, 'sensitivity': 0.5}
    """
    one_case = np.zeros(len(np.asarray(label)), dtype=np.intp)
    values = values_of_draws(label, probability, one_case, np.ones((1, 1)), threshold, metrics)
    return {name: float(value[0]) for name, value in values.items()}


def values_of_draws(
    label: ArrayLike,
    probability: ArrayLike,
    index: NDArray[np.intp],
    counts: FloatArray,
    threshold: float = 0.5,
    metrics: Sequence[str] = METRICS,
) -> dict[str, FloatArray]:
    """Compute each metric under each draw of cases: exactly what repeated rows would give, ties included.

    Args:
        label: (N,) of 0 and 1.
        probability: (N,) in [0, 1].
        index: (N,) number of each patch's case, in [0, K).
        counts: (D, K) how often each case counts in each draw, whole numbers.
        threshold: Positive where the probability is at least this.
        metrics: Which of `METRICS`.

    Returns:
        By metric, in the order of `METRICS`: (D,), NaN where undefined.

    >>> index, counts = np.array([0, 0, 1]), np.array([[1.0, 1.0], [2.0, 0.0]])
    >>> values_of_draws([0, 1, 1], [0.2, 0.9, 0.1], index, counts, metrics=["accuracy"])["accuracy"].round(3).tolist()
    [0.667, 1.0]
    """
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown:
        raise ValueError(f"Expected metrics out of {METRICS}, but got {unknown}.")
    labels, probabilities = checked(label, probability)
    if index.shape != labels.shape:
        raise ValueError(f"Expected case of shape {labels.shape} like label, but got {index.shape}.")
    values = _from_sums(labels, probabilities, index, counts, threshold)
    if "auroc" in metrics:
        values["auroc"] = _auroc(labels, probabilities, index, counts)
    if "average_precision" in metrics:
        values["average_precision"] = _average_precision(labels, probabilities, index, counts)
    return {name: values[name] for name in METRICS if name in metrics}


def _from_sums(
    labels: IntArray, probabilities: FloatArray, index: NDArray[np.intp], counts: FloatArray, threshold: float
) -> dict[str, FloatArray]:
    """Metrics that are functions of sums over patches: each draw weights the cases' sums."""
    cases = counts.shape[1]
    cell = 2 * labels + (probabilities >= threshold)
    confusions = np.bincount(4 * index + cell, minlength=4 * cases).reshape(cases, 4).astype(np.float64)
    tn, fp, fn, tp = (counts @ confusions).T
    patches = tn + fp + fn + tp
    values = rate_arrays(tn, fp, fn, tp)
    for name, losses in (("brier", (probabilities - labels) ** 2), ("log_loss", log_losses(labels, probabilities))):
        values[name] = ratio(counts @ np.bincount(index, weights=losses, minlength=cases), patches)
    return values


def pairwise_wins(labels: IntArray, probabilities: FloatArray, index: NDArray[np.intp], cases: int) -> FloatArray:
    """Count the pairs of an IDC patch of case i and a benign one of case j ranked right, (cases, cases); ties half.

    >>> pairwise_wins(np.array([0, 1, 1]), np.array([0.2, 0.9, 0.2]), np.array([0, 0, 1]), 2).tolist()
    [[1.0, 0.0], [0.5, 0.0]]
    """
    positives = np.flatnonzero(labels == 1)
    positives = positives[np.argsort(probabilities[positives])]  # sorted needles keep the searches in cache
    scores, of_case = probabilities[positives], index[positives]
    negatives = np.flatnonzero(labels == 0)
    negatives = negatives[np.lexsort((probabilities[negatives], index[negatives]))]
    ends = np.cumsum(np.bincount(index[negatives], minlength=cases))
    wins = np.zeros((cases, cases))
    for column, benign in enumerate(np.split(probabilities[negatives], ends[:-1])):
        below = np.searchsorted(benign, scores, side="left")
        not_above = np.searchsorted(benign, scores, side="right")
        wins[:, column] = np.bincount(of_case, weights=below + not_above, minlength=cases) / 2
    return wins


def _auroc(labels: IntArray, probabilities: FloatArray, index: NDArray[np.intp], counts: FloatArray) -> FloatArray:
    cases = counts.shape[1]
    wins = pairwise_wins(labels, probabilities, index, cases) if cases else np.zeros((0, 0))
    positives = counts @ np.bincount(index[labels == 1], minlength=cases).astype(np.float64)
    negatives = counts @ np.bincount(index[labels == 0], minlength=cases).astype(np.float64)
    return ratio(np.sum((counts @ wins) * counts, axis=1), positives * negatives)


def _average_precision(
    labels: IntArray, probabilities: FloatArray, index: NDArray[np.intp], counts: FloatArray
) -> FloatArray:
    """Average precision of each draw, (D,): patches sorted once, running counts weighted for some draws at a time."""
    order = np.argsort(-probabilities, kind="stable")
    ranked, cases_ranked, is_positive = probabilities[order], index[order], labels[order] == 1
    last_of_tie = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.empty(0, np.intp)
    found = np.cumsum(is_positive)[last_of_tie]
    # Recall moves only at scores that some IDC patch has: the others need no quotient.
    moves = np.diff(found, prepend=0) > 0
    last_of_tie, found = last_of_tie[moves], found[moves]
    values = np.full(len(counts), np.nan)
    if not len(found):
        return values
    cases_of_positives = cases_ranked[is_positive]
    # Running counts are whole; 32 bits, twice as fast, do unless a draw of the largest case alone could pass 2^31.
    largest = float(np.max(counts.sum(axis=1))) * int(np.max(np.bincount(index)))
    weights = counts.astype(np.int32 if largest < 2**31 else np.int64)
    at_once = max(1, CELLS_AT_ONCE // len(ranked))
    for start in range(0, len(weights), at_once):
        chunk = weights[start : start + at_once]
        called = np.cumsum(np.take(chunk, cases_ranked, axis=1), axis=1, dtype=chunk.dtype)[:, last_of_tie]
        hits = np.cumsum(np.take(chunk, cases_of_positives, axis=1), axis=1, dtype=chunk.dtype)[:, found - 1]
        steps = np.diff(hits, axis=1, prepend=0)
        # Nothing called yet means no hits yet either: any denominator but 0 gives the 0 that belongs there.
        area = np.sum(steps * (hits / np.maximum(called, 1)), axis=1)
        values[start : start + at_once] = ratio(area, hits[:, -1])
    return values
