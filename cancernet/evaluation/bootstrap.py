"""Intervals of metrics from resampling whole cases, and paired differences.

A case is about a thousand neighbouring patches, so whole cases are resampled with replacement (cluster bootstrap,
Davison and Hinkley 1997); intervals are percentiles of the draws. A draw is a vector of how often each case counts,
and each metric is computed exactly from that vector (see `estimates`).

Draws in which a metric is undefined (see `cancernet.evaluation.metrics`) are left out of its percentiles; ``draws``
counts the rest. Fewer than two cases give no interval: ``low`` and ``high`` are NaN, ``draws`` 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cancernet.evaluation.estimates import values_of_draws
from cancernet.evaluation.metrics import METRICS, FloatArray, case_index, ratio

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A metric on all patches, its percentile interval over cases, and how many draws define it."""

    estimate: float
    low: float
    high: float
    draws: int


@dataclass(frozen=True)
class Difference:
    """A metric of two predictions of the same patches; ``estimate`` is a - b, with its interval of the paired draws."""

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
    """Compute metrics of all patches with their intervals over cases.

    Args:
        label: (N,) of 0 and 1.
        probability: (N,) in [0, 1].
        case: (N,) names of the cases.
        threshold: A patch is called positive where its probability is at least this.
        draws: Number of resamples.
        seed: Seed of the draws; the same seed and case names give the same draws, in any order of patches.
        level: Coverage of the intervals, in (0, 1).
        metrics: Which of `METRICS` to compute.

    Raises:
        ValueError: If shapes differ, values are out of range or a metric is unknown.

    Examples:
        >>> label, probability, case = [0, 1, 1, 0, 0, 1], [0.1, 0.8, 0.6, 0.7, 0.2, 0.9], list("aaabbb")
        >>> bootstrap(label, probability, case, draws=100, metrics=["auroc"])["auroc"]
        Interval(estimate=0.8888888888888888, low=0.8888888888888888, high=1.0, draws=100)
    """
    names, index = case_index(case)
    counts = draw_cases(len(names), draws, seed)
    values = values_of_draws(label, probability, index, counts, threshold, metrics)
    return {name: Interval(float(v[0]), *_percentiles(v[1:], level)) for name, v in values.items()}


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
    """Compute the metric of a minus the metric of b, on the same draws of cases; each has its own threshold.

    The other arguments are those of `bootstrap`. A draw counts where both are defined.

    Examples:
        >>> label, a, b, case = [0, 1, 1, 0], [0.1, 0.8, 0.6, 0.4], [0.7, 0.8, 0.6, 0.4], list("aabb")
        >>> paired_difference(label, a, b, case, draws=100, metrics=["auroc"])["auroc"].estimate
        0.25
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
    """Compute the mean metric of several predictions minus that of several others, such as runs of several seeds.

    The metric is averaged over predictions within each draw, so the interval is that of the cases, for these runs. A
    draw counts where all are defined. ``a`` and ``b`` hold probabilities (N,) and threshold of each prediction on one
    side; the other arguments are those of `bootstrap`.

    >>> label, case = [0, 1, 1, 0], list("aabb")
    >>> a, b = [([0.1, 0.8, 0.6, 0.4], 0.5), ([0.1, 0.8, 0.6, 0.7], 0.5)], [([0.7, 0.8, 0.6, 0.4], 0.5)]
    >>> paired_mean_difference(label, a, b, case, draws=100, metrics=["auroc"])["auroc"].estimate
    0.125
    """
    names, index = case_index(case)
    counts = draw_cases(len(names), draws, seed)
    of_a, of_b = (_average(label, side, index, counts, metrics) for side in (a, b))
    return {name: _difference(of_a[name], of_b[name], level) for name in of_a}


def bootstrap_mean(
    label: ArrayLike,
    predictions: Sequence[tuple[ArrayLike, float]],
    case: ArrayLike,
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = LEVEL,
    metrics: Sequence[str] = METRICS,
) -> dict[str, Interval]:
    """Compute the mean metric of several predictions, such as runs of several seeds; see `paired_mean_difference`.

    >>> a, b = ([0.1, 0.8, 0.6, 0.4], 0.5), ([0.7, 0.8, 0.6, 0.4], 0.5)
    >>> bootstrap_mean([0, 1, 1, 0], [a, b], list("aabb"), draws=100, metrics=["auroc"])["auroc"].estimate
    0.875
    """
    names, index = case_index(case)
    values = _average(label, predictions, index, draw_cases(len(names), draws, seed), metrics)
    return {name: Interval(float(v[0]), *_percentiles(v[1:], level)) for name, v in values.items()}


def _average(
    label: ArrayLike,
    predictions: Sequence[tuple[ArrayLike, float]],
    index: NDArray[np.intp],
    counts: FloatArray,
    metrics: Sequence[str],
) -> dict[str, FloatArray]:
    """Average each metric over predictions (probabilities and threshold) within each draw."""
    values = [values_of_draws(label, probability, index, counts, at, metrics) for probability, at in predictions]
    return {name: np.mean([one[name] for one in values], axis=0) for name in values[0]}


def bootstrap_case_mean(value: ArrayLike, *, draws: int = DRAWS, seed: int = 0, level: float = LEVEL) -> Interval:
    """Average one number a case, (K,), with its interval over cases; cases where it is NaN are left out.

    >>> bootstrap_case_mean([0.8, 0.6, float("nan")], draws=100).estimate
    0.7
    """
    values = np.asarray(value, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"Expected value of shape (K,), but got shape {values.shape}.")
    defined = ~np.isnan(values)
    counts = draw_cases(len(values), draws, seed)
    means = ratio(counts @ np.where(defined, values, 0.0), counts @ defined.astype(np.float64))
    return Interval(float(means[0]), *_percentiles(means[1:], level))


def bootstrap_rank_correlation(
    a: ArrayLike, b: ArrayLike, *, draws: int = DRAWS, seed: int = 0, level: float = LEVEL
) -> Interval:
    """Compute Spearman's rank correlation of two numbers a case, both (K,), with its interval over cases.

    Cases that are drawn several times are ties, which share the mean of their ranks. NaN where one side is constant.

    Raises:
        ValueError: If shapes differ.

    >>> bootstrap_rank_correlation([0.1, 0.4, 0.2, 0.9], [0.0, 0.5, 0.3, 0.4], draws=100).estimate
    0.8
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"Expected a and b of one shape (K,), but got {first.shape} and {second.shape}.")
    counts = draw_cases(len(first), draws, seed).astype(np.int64)
    chosen = np.repeat(np.tile(np.arange(len(first)), len(counts)), counts.ravel()).reshape(counts.shape)
    # By pandas: importing scipy.stats takes longer than all of this.
    ranks = (pd.DataFrame(values[chosen]).rank(axis=1).to_numpy() for values in (first, second))
    x, y = (rank - (len(first) + 1) / 2 for rank in ranks)
    scale = np.sqrt(np.sum(x**2, axis=1) * np.sum(y**2, axis=1))
    correlations = np.clip(ratio(np.sum(x * y, axis=1), scale), -1.0, 1.0)  # the root rounds
    return Interval(float(correlations[0]), *_percentiles(correlations[1:], level))


def draw_cases(cases: int, draws: int, seed: int) -> FloatArray:
    """Count how often each case is resampled: (1 + draws, cases), first a row of ones (the data), then the draws.

    Fewer than two cases are not resampled: one case says nothing about the next.

    Raises:
        ValueError: If ``draws`` < 1.

    >>> draw_cases(3, draws=2, seed=0).sum(axis=1).tolist()
    [3.0, 3.0, 3.0]
    """
    if draws < 1:
        raise ValueError(f"Expected draws >= 1, but got {draws}.")
    ones = np.ones((1, cases))
    if cases < 2:
        return ones
    drawn = np.random.default_rng(seed).multinomial(cases, np.full(cases, 1 / cases), size=draws)
    return np.concatenate([ones, drawn.astype(np.float64)])


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
