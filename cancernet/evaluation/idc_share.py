"""The share of a case that is IDC: as the model calls its patches, and as the expert outlined it.

Patches are of one size, so a share of patches is a share of the tissue's area.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cancernet.evaluation.bootstrap import bootstrap_case_mean, bootstrap_rank_correlation
from cancernet.evaluation.metrics import FloatArray
from cancernet.evaluation.values import Bootstrap, CaseMetrics, Interval, ShareAgreement

LIMIT = 1.96
"""Standard deviations from the mean difference to a limit of agreement: 95 % of a normal distribution."""


class Shares(NamedTuple):
    """Shares of IDC by case, both (K,) in [0, 1]."""

    expert: FloatArray
    predicted: FloatArray


def shares(rows: Sequence[CaseMetrics]) -> Shares:
    """Return the share of each case's patches that the expert labelled IDC, and the share that is called IDC.

    >>> from cancernet.evaluation.per_case import per_case
    >>> shares(per_case([0, 1, 0, 1], [0.1, 0.8, 0.6, 0.4], list("abbb"))).predicted.round(3).tolist()
    [0.0, 0.667]
    """
    counts = np.array([(row.idc, row.tp + row.fp, row.patches) for row in rows], dtype=np.float64).reshape(-1, 3)
    idc, called, patches = counts.T
    return Shares(idc / patches, called / patches)


def share_agreement(rows: Sequence[CaseMetrics], settings: Bootstrap) -> ShareAgreement:
    """Compare predicted and expert's shares: rank correlation, and limits of agreement (Bland and Altman 1986).

    Args:
        rows: One a case.
        settings: Of the bootstrap over cases.

    Returns:
        With None for what is undefined: a correlation where either share is the same in all cases, limits where there
        are fewer than two cases.

    >>> from cancernet.evaluation.per_case import per_case
    >>> settings = Bootstrap(level=0.95, draws=100, seed=0, unit="case")
    >>> share_agreement(per_case([0, 1, 0, 1], [0.1, 0.8, 0.6, 0.4], list("abbb")), settings).mean_difference.estimate
    0.0
    """
    expert, predicted = shares(rows)
    difference = predicted - expert
    arguments = settings.model_dump(include={"draws", "seed", "level"})
    mean = bootstrap_case_mean(difference, **arguments)
    sd = float(np.std(difference, ddof=1)) if len(difference) > 1 else float("nan")
    return ShareAgreement(
        cases=len(rows),
        spearman=Interval.model_validate(bootstrap_rank_correlation(predicted, expert, **arguments)),
        mean_difference=Interval.model_validate(mean),
        sd=sd,
        lower_limit=mean.estimate - LIMIT * sd,
        upper_limit=mean.estimate + LIMIT * sd,
    )
