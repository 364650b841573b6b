"""Choose thresholds on validation data, to be applied to test data.

Candidates are the observed, uncalibrated probabilities; a patch is positive where ``probability >= threshold``. All
comparisons are made on whole counts or single quotients of them, so that ties are ties and not rounding.
"""

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from cancernet.evaluation.metrics import ThresholdCounts, confusion, counts_by_threshold, rates
from cancernet.evaluation.results import StoredPoint

Rate = Literal["sensitivity", "specificity"]

FIXED: tuple[tuple[Rate, float], ...] = (
    ("specificity", 0.90),
    ("specificity", 0.95),
    ("sensitivity", 0.90),
    ("sensitivity", 0.95),
    ("sensitivity", 0.99),
)
"""Operating points: the rate that is held, and its target."""


def youden(label: ArrayLike, probability: ArrayLike) -> float:
    """Threshold with the greatest sensitivity + specificity - 1 (Youden 1950); ties go to the lower threshold.

    Raises:
        ValueError: If only one class is present.

    Examples:
        >>> youden([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.9])
        0.3
    """
    threshold, tp, fp = _both_classes(label, probability)
    index = tp * fp[-1] - fp * tp[-1]
    return float(threshold[np.flatnonzero(index == index.max())[-1]])  # thresholds fall


def at_sensitivity(label: ArrayLike, probability: ArrayLike, target: float) -> float:
    """Highest threshold whose sensitivity still reaches ``target``: the best specificity there is at that sensitivity.

    Raises:
        ValueError: If only one class is present or ``target`` is outside (0, 1].

    Examples:
        >>> at_sensitivity([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.9], target=0.9)
        0.3
    """
    _check_target(target)
    threshold, tp, _ = _both_classes(label, probability)
    return float(threshold[np.argmax(tp / tp[-1] >= target)])


def at_specificity(label: ArrayLike, probability: ArrayLike, target: float) -> float:
    """Lowest threshold whose specificity still reaches ``target``: the best sensitivity there is at that specificity.

    Where too many benign patches share the highest probability, no observed value reaches the target. The result is
    then the next number above it (in the precision of ``probability``, so that a comparison in float32 agrees):
    nothing is called positive, sensitivity is 0.

    Raises:
        ValueError: If only one class is present or ``target`` is outside (0, 1].

    Examples:
        >>> at_specificity([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.9], target=0.9)
        0.9
    """
    _check_target(target)
    threshold, _, fp = _both_classes(label, probability)
    reaching = np.count_nonzero((fp[-1] - fp) / fp[-1] >= target)
    if reaching:
        return float(threshold[reaching - 1])
    highest = np.max(np.asarray(probability))
    return float(np.nextafter(highest, np.inf, dtype=np.result_type(highest, np.float16)))


def operating_points(label: ArrayLike, probability: ArrayLike) -> list[StoredPoint]:
    """Choose the thresholds of `FIXED` on some data, with both rates of the same data at them.

    Each is named by the rate read off, then the one held, e.g. ``sensitivity_at_specificity_90``.

    Raises:
        ValueError: If only one class is present.

    >>> points = operating_points([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.9])
    >>> points[0].name, points[0].threshold, points[0].sensitivity
    ('sensitivity_at_specificity_90', 0.9, 0.5)
    """
    choose = {"sensitivity": at_sensitivity, "specificity": at_specificity}
    chosen = []
    for fixed, target in FIXED:
        name = f"{'specificity' if fixed == 'sensitivity' else 'sensitivity'}_at_{fixed}_{100 * target:g}"
        threshold = choose[fixed](label, probability, target)
        chosen.append(
            StoredPoint(name=name, fixed=fixed, target=target, threshold=threshold, sensitivity=None, specificity=None)
        )
    return apply(chosen, label, probability)


def apply(points: Iterable[StoredPoint], label: ArrayLike, probability: ArrayLike) -> list[StoredPoint]:
    """Keep each point's threshold and read both rates off other data; None where those lack a class.

    >>> points = operating_points([0, 0, 1, 1], [0.1, 0.4, 0.3, 0.9])
    >>> apply(points, [0, 1], [0.1, 0.95])[0].sensitivity
    1.0
    """
    shown = [(point, rates(confusion(label, probability, point.threshold))) for point in points]
    return [StoredPoint.model_validate({**dict(point), **values}) for point, values in shown]


def _both_classes(label: ArrayLike, probability: ArrayLike) -> ThresholdCounts:
    """Counts by falling threshold of data that hold both classes."""
    counts = counts_by_threshold(label, probability)
    positives, negatives = (int(counts.tp[-1]), int(counts.fp[-1])) if len(counts.tp) else (0, 0)
    if positives == 0 or negatives == 0:
        raise ValueError(
            f"A threshold needs both classes to be chosen on, but got {positives} IDC and {negatives} benign patches: "
            "choose it on more cases."
        )
    return counts


def _check_target(target: float) -> None:
    if not 0 < target <= 1:
        raise ValueError(f"Expected target in (0, 1], but got {target}.")
