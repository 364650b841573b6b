"""A patch's log-odds, corrected by those of its neighbours on the slide.

With z the log-odds of a patch, c_r the share of ring r around it that holds patches, and m_r their mean log-odds (ring
1: the 8 cells around a patch, ring 2: the 16 around those):

    z' = z + sum over rings of c_r (b_r + u_r z + w_r m_r)

It is linear in b, u and w, and where no neighbour is there it is z exactly. The coefficients are those of a logistic
regression with z as offset and a small ridge: an auto-logistic model (Besag 1974), of scores instead of labels.
"""

import numpy as np
from numpy.typing import ArrayLike

from cancernet.errors import InputError
from cancernet.evaluation.calibration import logistic_regression
from cancernet.evaluation.grid import lay_out, sum_ring
from cancernet.evaluation.statistics import FloatArray, case_index, checked_labels

RIDGE = 1.0
"""Beside the log loss summed over patches: a coefficient of standardised scores is taken to be near 1 or below, until
some patches object."""
EVENTS = 10
"""Patches of the rarer class needed for each coefficient (Peduzzi et al. 1996)."""
TERMS = 3
"""Coefficients of a ring: b, u, w."""


def gather_neighbours(
    logit: ArrayLike, case: ArrayLike, x: ArrayLike, y: ArrayLike, rings: int
) -> tuple[FloatArray, FloatArray]:
    """Count each patch's neighbours, and sum their log-odds.

    Args:
        logit: (N,) finite log-odds.
        case: (N,) names of the cases; no patch neighbours one of another case.
        x: (N,) left edge in pixels, negative where unknown: such a patch has no neighbour and is none.
        y: (N,) upper edge likewise.
        rings: 1 for neighbourhoods of 3x3 cells, 2 for 5x5.

    Returns:
        (N, rings) neighbours in each ring and (N, rings) the sum of their log-odds.
    """
    logits, columns, rows = np.asarray(logit, dtype=np.float64), np.asarray(x), np.asarray(y)
    names, index = case_index(case)
    count, total = np.zeros((len(logits), rings)), np.zeros((len(logits), rings))
    order = np.argsort(index, kind="stable")
    ends = np.cumsum(np.bincount(index, minlength=len(names)))
    for member in np.split(order, ends[:-1]):
        grid = lay_out(columns[member], rows[member])
        if grid is None:
            continue
        placed = member[grid.patch]
        for ring in range(rings):
            count[placed, ring], total[placed, ring] = sum_ring(grid, logits[member], ring + 1)
    return count, total


def features(logit: ArrayLike, count: FloatArray, total: FloatArray) -> FloatArray:
    """What b, u and w of each ring weigh, (N, 3 x rings): c_r, c_r z and c_r m_r, ring by ring."""
    cells = 8 * np.arange(1, count.shape[1] + 1)
    share = count / cells
    logits = np.asarray(logit, dtype=np.float64)[:, None]
    return np.stack([share, share * logits, total / cells], axis=2).reshape(len(logits), -1)


def fit_correction(
    label: ArrayLike, logit: ArrayLike, count: FloatArray, total: FloatArray, ridge: float = RIDGE
) -> FloatArray:
    """Fit the coefficients on the patches that have neighbours.

    The ridge weighs the coefficients of scores in standard deviations from their mean over these patches. In plain
    log-odds it would hold back scores that rank well and hardly spread: only the number of neighbours would count.

    Args:
        label: (N,) of 0 and 1.
        logit: (N,) finite log-odds.
        count: (N, rings) and
        total: (N, rings), as `gather_neighbours` gives them.
        ridge: See `logistic_regression`.

    Returns:
        (rings, 3): b, u and w of each ring.

    Raises:
        InputError: No patch has a neighbour, or too few of a class do.
    """
    labels, logits = checked_labels(label), np.asarray(logit, dtype=np.float64)
    having = count.sum(axis=1) > 0
    coefficients = TERMS * count.shape[1]
    idc, patches = int(labels[having].sum()), int(having.sum())
    way_out = "fit on cases of which more patches are there (--fit_on CASE,...)"
    if not patches:
        raise InputError(f"context: none of the {len(labels):,} patches to fit on has a neighbour; {way_out}")
    if min(idc, patches - idc) < EVENTS * coefficients:
        raise InputError(
            f"context: {idc:,} IDC and {patches - idc:,} benign patches to fit on have neighbours, and "
            f"{coefficients} coefficients need {EVENTS * coefficients} of each; {way_out}"
        )
    labels, logits, count, total = (values[having] for values in (labels, logits, count, total))
    centre, spread = float(logits.mean()), float(logits.std()) or 1.0
    design = features((logits - centre) / spread, count, (total - count * centre) / spread)
    fitted = logistic_regression(labels, design, np.zeros(coefficients), offset=logits, ridge=ridge)
    b, u, w = fitted.reshape(-1, TERMS).T
    return np.stack([b - (u + w) * centre / spread, u / spread, w / spread], axis=1)


def correction(logit: ArrayLike, count: FloatArray, total: FloatArray, coefficients: FloatArray) -> FloatArray:
    """What the neighbours add to the log-odds, z' - z, (N,); exactly 0 where none is there."""
    return features(logit, count, total) @ coefficients.ravel()
