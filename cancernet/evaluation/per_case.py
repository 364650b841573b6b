"""Metrics of each case, their spread over cases, and the worst cases."""

from operator import attrgetter

import numpy as np
from numpy.typing import ArrayLike

from cancernet.evaluation.estimates import estimates
from cancernet.evaluation.metrics import LOSSES, METRICS, RANKS, RATES, case_index, checked, confusion, ratio
from cancernet.evaluation.values import CaseMetrics, CaseSummary, Spread

QUANTILES = {"lowest": 0.0, "quartile_1": 0.25, "median": 0.5, "quartile_3": 0.75, "highest": 1.0}


def per_case(
    label: ArrayLike, probability: ArrayLike, case: ArrayLike, threshold: float = 0.5, exact: ArrayLike | None = None
) -> list[CaseMetrics]:
    """Compute the metrics of each case, sorted by name.

    Args:
        label: (N,) of 0 and 1.
        probability: (N,) in [0, 1].
        case: (N,) names of the cases.
        threshold: A patch is called positive where its probability is at least this.
        exact: (N,) probability in double precision, for Brier score and log loss; `probability` where not given.

    >>> [row.auroc for row in per_case([0, 1, 0, 1], [0.1, 0.8, 0.6, 0.4], ["a", "a", "b", "b"])]
    [1.0, 0.0]
    """
    labels, probabilities = checked(label, probability)
    _, precise = checked(labels, probabilities if exact is None else exact)
    names, index = case_index(case)
    if len(index) != len(labels):
        raise ValueError(f"Expected case of shape {labels.shape} like label, but got {index.shape}.")
    order = np.argsort(index, kind="stable")
    ends = np.cumsum(np.bincount(index, minlength=len(names)))
    rows = []
    for name, of_case in zip(names, np.split(order, ends[:-1]), strict=False):
        known, found = labels[of_case], probabilities[of_case]
        counts = confusion(known, found, threshold)
        fields = {
            "case": str(name),
            "patches": len(known),
            "idc": int(known.sum()),
            "threshold": threshold,
            **counts._asdict(),
            **estimates(known, found, threshold, RANKS + RATES),
            **estimates(known, precise[of_case], metrics=LOSSES),
            "prevalence": ratio(known.sum(), len(known)).item(),
            "mean_probability": found.mean().item(),
        }
        rows.append(CaseMetrics.model_validate(fields))
    return rows


def case_summary(rows: list[CaseMetrics]) -> CaseSummary:
    """Summarise each metric over the cases that define it; each case weighs the same, ``sd`` divides by n - 1.

    >>> case_summary(per_case([0, 1, 0, 1], [0.1, 0.8, 0.6, 0.4], list("aabb"))).auroc.mean
    0.5
    """
    return CaseSummary(**{name: _spread(rows, name) for name in (*METRICS, "prevalence", "mean_probability")})


def _spread(rows: list[CaseMetrics], name: str) -> Spread:
    values = np.array([getattr(row, name) for row in rows], dtype=np.float64)  # None becomes NaN
    values = values[~np.isnan(values)]
    if not len(values):
        return Spread(cases=0, mean=None, sd=None, **dict.fromkeys(QUANTILES))
    return Spread(
        cases=len(values),
        mean=float(np.mean(values)),
        sd=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        **dict(zip(QUANTILES, np.quantile(values, list(QUANTILES.values())).tolist(), strict=True)),
    )


def worst_tenth(rows: list[CaseMetrics], by: str = "balanced_accuracy") -> list[CaseMetrics]:
    """Return the tenth of the cases (rounded up) with the lowest value of a metric, worst first.

    Cases where the metric is undefined are not ranked.

    >>> [row.case for row in worst_tenth(per_case([0, 1, 0, 1], [0.1, 0.8, 0.6, 0.4], list("aabb")))]
    ['b']
    """
    ranked = [row for row in rows if getattr(row, by) is not None]
    return sorted(ranked, key=attrgetter(by))[: -(-len(ranked) // 10)]
