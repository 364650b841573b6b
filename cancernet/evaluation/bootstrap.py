"""Intervals from resampling whole cases, and paired differences of two predictions.

About a thousand neighbouring patches make one case, so the case is what is drawn, with replacement, as often as there
are cases (cluster bootstrap, Davison and Hinkley 1997); intervals are percentiles of the draws. A draw
is a vector of how often each case came up, and each metric is computed from those counts exactly, without touching
rows where it can be avoided:

- threshold metrics, Brier score and log loss from sums per case;
- AUROC from U[i, j], the pairs (IDC of case i, benign of case j) ranked rightly: w' U w over the number of pairs;
- average precision from one sort of all patches, whose running counts are weighted afresh for each draw.

A draw in which a metric is undefined (one class, or nothing called positive: see `cancernet.evaluation.metrics`)
is left out of that metric's percentiles; ``draws`` counts those that remain. Fewer than two cases give no interval:
``low`` and ``high`` are NaN, ``draws`` 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cancernet.evaluation.metrics import (
    METRICS,
    FloatArray,
    IntArray,
    case_index,
    checked,
    log_losses,
    rate_arrays,
    ratio,
)

DRAWS = 2000
LEVEL = 0.95

CELLS_AT_ONCE = 2**18
"""Draws x patches held at once for average precision: 1 to 2 MB an array, which stays in the processor's cache."""


@dataclass(frozen=True)
class Interval:
    """A metric on all patches, the percentile interval over cases, and how many draws define it."""

    estimate: float
    low: float
    high: float
    draws: int


@dataclass(frozen=True)
class Difference:
    """Two predictions of the same patches: ``estimate`` is a - b, with the percentile interval of the paired draws."""

    a: float
    b: float
    estimate: float
    low: float
    high: float
    draws: int


def bootstrap(
    label: ArrayLike,
    probability: ArrayLike,
    case: ArrayLike,
    threshold: float = 0.5,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
    metrics: Sequence[str] = METRICS,
) -> dict[str, Interval]:
    """Metrics of all patches with their intervals over cases.

    Args:
        label: (N,) of 0 and 1.
        probability: (N,) in [0, 1].
        case: (N,) names of the cases.
        threshold: A patch is called positive where its probability is at least this.
        draws: Number of resamples.
        seed: Seed of the draws; the same seed and case names draw the same cases, in whatever order patches stand.
        level: Coverage of the intervals, in (0, 1).
        metrics: Which of `METRICS` to compute; the draws of each do not depend on the others.

    Raises:
        ValueError: If shapes differ, values are out of range or a metric is unknown.
    """
    names, index = case_index(case)
    counts = draw_cases(len(names), draws, seed)
    values = values_of_draws(label, probability, index, counts, threshold, metrics)
    return {name: Interval(float(v[0]), *_percentiles(v[1:], level)) for name, v in values.items()}


def estimates(
    label: ArrayLike, probability: ArrayLike, threshold: float = 0.5, metrics: Sequence[str] = METRICS
) -> dict[str, float]:
    """Metrics of all patches, NaN where undefined: what `bootstrap` gives as estimates, without intervals.

    >>> estimates([0, 1, 0, 1], [0.1, 0.8, 0.6, 0.4], metrics=["auroc", "sensitivity"])
    {'auroc': 0.75, 'sensitivity': 0.5}
    """
    one_case = np.zeros(len(np.asarray(label)), dtype=np.intp)
    values = values_of_draws(label, probability, one_case, np.ones((1, 1)), threshold, metrics)
    return {name: float(value[0]) for name, value in values.items()}


def paired_difference(
    label: ArrayLike,
    probability_a: ArrayLike,
    probability_b: ArrayLike,
    case: ArrayLike,
    threshold_a: float = 0.5,
    threshold_b: float = 0.5,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
    metrics: Sequence[str] = METRICS,
) -> dict[str, Difference]:
    """Metric of a minus metric of b, both on the same draws of cases.

    Each has its own threshold; the other arguments are those of `bootstrap`. A draw counts where both sides are
    defined.

    Raises:
        ValueError: If shapes differ, values are out of range or a metric is unknown.
    """
    a, b = [(probability_a, threshold_a)], [(probability_b, threshold_b)]
    return paired_mean_difference(label, a, b, case, draws=draws, seed=seed, level=level, metrics=metrics)


def paired_mean_difference(
    label: ArrayLike,
    a: Sequence[tuple[ArrayLike, float]],
    b: Sequence[tuple[ArrayLike, float]],
    case: ArrayLike,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
    metrics: Sequence[str] = METRICS,
) -> dict[str, Difference]:
    """Mean metric of several predictions less that of several others, as of runs that differ in their seed.

    Every prediction is judged on the same draws of cases, and the metric is averaged over predictions within a draw:
    the interval is that of the cases, for these runs. A draw counts where all are defined.

    Args:
        label: (N,) of 0 and 1.
        a: Probabilities (N,) and threshold of each prediction on the one side.
        b: The same of the other side.
        case: (N,) names of the cases.
        draws: Number of resamples.
        seed: Seed of the draws.
        level: Coverage of the intervals, in (0, 1).
        metrics: Which of `METRICS` to compute.

    Raises:
        ValueError: If shapes differ, values are out of range or a metric is unknown.
    """
    names, index = case_index(case)
    counts = draw_cases(len(names), draws, seed)

    def average(side: Sequence[tuple[ArrayLike, float]]) -> dict[str, FloatArray]:
        values = [values_of_draws(label, probability, index, counts, at, metrics) for probability, at in side]
        return {name: np.mean([one[name] for one in values], axis=0) for name in values[0]}

    of_a, of_b = average(a), average(b)
    return {name: _difference(of_a[name], of_b[name], level) for name in of_a}


def bootstrap_case_mean(value: ArrayLike, *, draws: int = DRAWS, seed: int = 0, level: float = LEVEL) -> Interval:
    """Mean over cases of one number a case, (K,), with its interval; cases where it is NaN are left out."""
    values = np.asarray(value, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"Expected value of shape (K,), but got shape {values.shape}.")
    defined = ~np.isnan(values)
    counts = draw_cases(len(values), draws, seed)
    means = ratio(counts @ np.where(defined, values, 0.0), counts @ defined.astype(np.float64))
    return Interval(float(means[0]), *_percentiles(means[1:], level))


def draw_cases(cases: int, draws: int, seed: int) -> FloatArray:
    """How often each case counts: (1 + draws, cases), first a row of ones (all patches, once), then the draws.

    No draw is made of fewer than two cases: resampling one case says nothing about the next.

    Raises:
        ValueError: If ``draws`` < 1.
    """
    if draws < 1:
        raise ValueError(f"Expected draws >= 1, but got {draws}.")
    ones = np.ones((1, cases))
    if cases < 2:
        return ones
    drawn = np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), size=draws)
    return np.concatenate([ones, drawn.astype(np.float64)])


def values_of_draws(
    label: ArrayLike,
    probability: ArrayLike,
    index: NDArray[np.intp],
    counts: FloatArray,
    threshold: float = 0.5,
    metrics: Sequence[str] = METRICS,
) -> dict[str, FloatArray]:
    """Each metric under each draw of cases, exactly what the repeated rows would give, ties included.

    Args:
        label: (N,) of 0 and 1.
        probability: (N,) in [0, 1].
        index: (N,) number of each patch's case, in [0, K).
        counts: (D, K) how often each case counts in each draw, whole numbers.
        threshold: Positive where the probability is at least this.
        metrics: Which of `METRICS`.

    Returns:
        By metric, in the order of `METRICS`: (D,), NaN where undefined.
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
    """Metrics that are functions of sums over patches: each draw weighs the cases' sums."""
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
    """Mann-Whitney counts, (cases, cases): pairs of IDC of the row and benign of the column won, ties counting half."""
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


def _difference(of_a: FloatArray, of_b: FloatArray, level: float) -> Difference:
    return Difference(float(of_a[0]), float(of_b[0]), float(of_a[0] - of_b[0]), *_percentiles((of_a - of_b)[1:], level))


def _percentiles(values: FloatArray, level: float) -> tuple[float, float, int]:
    """Ends of the central interval of the draws that are defined, and their number; NaN, NaN, 0 where none is."""
    if not 0 < level < 1:
        raise ValueError(f"Expected level in (0, 1), but got {level}.")
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan"), 0
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), len(defined)
