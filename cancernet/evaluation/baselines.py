"""Baselines: the prevalence alone, and a logistic regression on colour histograms.

The histogram counts 4 x 4 x 4 colours, and the regression sees the square root of the shares (the Hellinger kernel),
which keeps one large bin from drowning the others. On the sample of the IDC archive it ranks patches better than finer
histograms and than histograms a channel.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from cancernet.evaluation.analysis import BaselineScores
from cancernet.evaluation.calibration import sigmoid
from cancernet.evaluation.thresholds import youden

BINS = 4
"""Bins a channel: 64 colours."""
PATCHES_AT_ONCE = 1024
"""8 MB of pixels and 20 MB of bin numbers at a time."""
ITERATIONS = 300
"""At most; about 60 suffice for the sample."""

Gather = Callable[[NDArray[np.int64]], NDArray[np.uint8]]
"""From row numbers (B,) to patches (B, H, W, 3), RGB."""


def score_baselines(
    gather: Gather,
    label: NDArray[np.integer],
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
    test: NDArray[np.int64],
) -> BaselineScores | None:
    """Train the baselines on the training part and apply them.

    Args:
        gather: Reads patches by row.
        label: (M,) of 0 and 1, of all rows.
        train: Rows of the training part.
        validation: Rows of the validation part.
        test: (N,) rows to score.

    Returns:
        The scores; None where the training part lacks a class.
    """
    if len(np.unique(label[train])) < 2:
        return None
    rows = np.concatenate([train, validation, test])
    features = colour_histograms(gather, rows)
    of_train, of_validation, of_test = np.split(features, np.cumsum([len(train), len(validation)]))
    centre, scale = of_train.mean(axis=0), of_train.std(axis=0)
    # Colours that hardly occur in training would be inflated by their tiny scale: set them to 0.
    scale[scale < 1e-4] = np.inf
    for part in (of_train, of_validation, of_test):
        part -= centre
        part /= scale
    model = LogisticRegression(max_iter=ITERATIONS).fit(of_train, label[train])
    logit = model.decision_function(of_test).astype(np.float64)
    threshold = None
    if len(np.unique(label[validation])) == 2:
        # In single precision, as test probabilities are compared.
        probability = sigmoid(model.decision_function(of_validation)).astype(np.float32)
        threshold = youden(label[validation], probability)
    return BaselineScores(float(np.mean(label[train])), logit, threshold)


def colour_histograms(gather: Gather, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Compute the square root of the share of each of the `BINS` ** 3 colours in each patch: (len(rows), 64).

    >>> white = lambda rows: np.full((len(rows), 50, 50, 3), 255, np.uint8)
    >>> colour_histograms(white, np.arange(2))[:, -1].tolist()
    [1.0, 1.0]
    """
    features = np.empty((len(rows), BINS**3), dtype=np.float32)
    # The bar shows on a terminal, where the work takes more than a second.
    with tqdm(total=len(rows), desc="colour histograms", unit="patch", delay=1, leave=False, disable=None) as bar:
        for start in range(0, len(rows), PATCHES_AT_ONCE):
            chunk = rows[start : start + PATCHES_AT_ONCE]
            features[start : start + len(chunk)] = _histograms(gather(chunk))
            bar.update(len(chunk))
    return features


def _histograms(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    levels = images // np.uint8(256 // BINS)
    colour = (levels[..., 0] * np.uint8(BINS) + levels[..., 1]) * np.uint8(BINS) + levels[..., 2]
    patches = len(images)
    # One count over all patches: the number of the patch is the leading digit.
    cell = colour.reshape(patches, -1) + BINS**3 * np.arange(patches, dtype=np.intp)[:, None]
    counts = np.bincount(cell.ravel(), minlength=patches * BINS**3).reshape(patches, -1)
    return np.sqrt(counts / max(1, cell.shape[1]), dtype=np.float32, casting="same_kind")
