"""A patch's log-odds, corrected by those of its neighbours on the slide.

With z the log-odds of a patch, t those of the threshold, c_r the share of ring r around it that holds patches, and m_r
their mean log-odds (ring 1: the 8 cells around a patch, ring 2: the 16 around those):

    z' = z + sum over rings of c_r (u_r (z - t) + w_r (m_r - t))

It is linear in u and w, and where no neighbour is there it is z exactly. The coefficients are those of a logistic
regression with z as offset and a small ridge: an auto-logistic model (Besag 1974) of scores instead of labels.

There is no constant: it would carry the share of carcinoma on a few fitted slides over to the next slide. Without it a
patch at the threshold among patches at the threshold stays there, so the threshold of validation keeps its meaning.
"""

import numpy as np
from numpy.typing import ArrayLike

from cancernet.errors import InputError
from cancernet.evaluation.calibration import logistic_regression
from cancernet.evaluation.grid import lay_out, sum_ring
from cancernet.evaluation.metrics import FloatArray, case_index, checked_labels

RIDGE = 1.0
"""Added to the log loss summed over patches: coefficients of standardised scores are expected to be 1 or smaller."""
EVENTS = 10
"""Patches of the rarer class needed for each coefficient (Peduzzi et al. 1996)."""
TERMS = 2
"""Coefficients of a ring: u, w."""


def gather_neighbours(
    logit: ArrayLike, case: ArrayLike, x: ArrayLike, y: ArrayLike, rings: int
) -> tuple[FloatArray, FloatArray]:
    """Count each patch's neighbours, and sum their log-odds.

    Args:
        logit: (N,) finite log-odds.
        case: (N,) names of the cases; patches of different cases are no neighbours.
        x: (N,) left edge in pixels, negative where unknown: such a patch has no neighbours.
        y: (N,) upper edge likewise.
        rings: 1 for neighbourhoods of 3x3 cells, 2 for 5x5.

    Returns:
        (N, rings) neighbours in each ring and (N, rings) the sum of their log-odds.

    >>> count, total = gather_neighbours([2.0, -1.0], ["a", "a"], [1, 51], [1, 1], rings=1)
    >>> count.tolist(), total.tolist()
    ([[1.0], [1.0]], [[-1.0], [2.0]])
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


def features(logit: ArrayLike, count: FloatArray, total: FloatArray, boundary: float) -> FloatArray:
    """Compute the terms of u and w of each ring, (N, 2 x rings): c_r (z - t) and c_r (m_r - t), ring by ring.

    >>> features([3.0], np.array([[8.0]]), np.array([[16.0]]), boundary=0.0).tolist()
    [[3.0, 2.0]]
    """
    cells = 8 * np.arange(1, count.shape[1] + 1)
    beyond = np.asarray(logit, dtype=np.float64)[:, None] - boundary
    return np.stack([count / cells * beyond, (total - count * boundary) / cells], axis=2).reshape(len(beyond), -1)


def fit_correction(
    label: ArrayLike, logit: ArrayLike, count: FloatArray, total: FloatArray, boundary: float, ridge: float = RIDGE
) -> FloatArray:
    """Fit the coefficients on the patches that have neighbours.

    The ridge applies to scores in standard deviations over these patches: in plain log-odds it would shrink the
    coefficients of scores that rank well but hardly spread.

    Args:
        label: (N,) of 0 and 1.
        logit: (N,) finite log-odds.
        count: (N, rings) and
        total: (N, rings), as `gather_neighbours` gives them.
        boundary: Log-odds of the threshold, t.
        ridge: See `logistic_regression`.

    Returns:
        (rings, 2): u and w of each ring.

    Raises:
        InputError: No patch has a neighbour, or too few of a class do.

    >>> label = np.tile([0, 1], 40)
    >>> fit_correction(label, 4.0 * label - 2, np.full((80, 1), 8.0), np.zeros((80, 1)), boundary=0.0).shape
    (1, 2)
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
    spread = float(logits.std()) or 1.0
    design = features(logits, count, total, boundary) / spread
    fitted = logistic_regression(labels, design, np.zeros(coefficients), offset=logits, ridge=ridge)
    return fitted.reshape(-1, TERMS) / spread


def correction(
    logit: ArrayLike, count: FloatArray, total: FloatArray, boundary: float, coefficients: FloatArray
) -> FloatArray:
    """Compute what the neighbours add to the log-odds, z' - z, (N,); exactly 0 without neighbours.

    >>> count, total, coefficients = np.array([[8.0], [0.0]]), np.array([[16.0], [0.0]]), np.array([[0.0, 0.5]])
    >>> correction([3.0, 3.0], count, total, 0.0, coefficients).tolist()
    [1.0, 0.0]
    """
    return features(logit, count, total, boundary) @ coefficients.ravel()
