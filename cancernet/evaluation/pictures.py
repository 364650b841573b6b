"""What the report shows of the images: thumbnails and the most confident mistakes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

THUMBNAIL = 8
"""Side of a thumbnail in pixels."""
MISTAKES = 24
"""Pictures of each kind of mistake."""
PATCHES_AT_ONCE = 1024
"""Patches shrunk at a time: 30 MB in single precision."""


@dataclass(frozen=True)
class Pictures:
    """Thumbnails of all M predictions and the patches of K mistakes.

    Attributes:
        thumbnail: (M, T, T, 3) uint8, RGB, one for each row of the predictions.
        mistake_row: (K,) int64, rows of the predictions: at most `MISTAKES` false positives, the highest probability
            first, then at most as many false negatives, the lowest first.
        mistake_image: (K, H, W, 3) uint8, RGB.
        mistake_map: (K, h, w) float32, what each cell of a mistake adds to the log-odds of IDC; None in files of
            version 0.1.
    """

    thumbnail: np.ndarray
    mistake_row: np.ndarray
    mistake_image: np.ndarray
    mistake_map: np.ndarray | None = None


def choose_pictures(
    table: pd.DataFrame, gather: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, threshold: float
) -> Pictures:
    """Shrink each patch to a thumbnail, and choose the most confident mistakes of the test part.

    Args:
        table: M predictions (see `run_folder.predictions_table`).
        gather: Reads patches (B, 50, 50, 3) uint8 by store row.
        rows: (M,) store rows of the predictions.
        threshold: IDC is called where the probability is at least this.
    """
    thumbnails = [
        shrink(gather(rows[start : start + PATCHES_AT_ONCE])) for start in range(0, len(rows), PATCHES_AT_ONCE)
    ]
    probability, label = table["probability"].to_numpy(), table["label"].to_numpy()
    tested = (table["part"] == "test").to_numpy()
    false_positives = np.flatnonzero(tested & (label == 0) & (probability >= threshold))
    false_negatives = np.flatnonzero(tested & (label == 1) & (probability < threshold))
    # By logit: many probabilities are 1 in single precision.
    logit = table["logit"].to_numpy()
    first_positives = false_positives[np.argsort(-logit[false_positives], kind="stable")][:MISTAKES]
    first_negatives = false_negatives[np.argsort(logit[false_negatives], kind="stable")][:MISTAKES]
    mistakes = np.concatenate([first_positives, first_negatives]).astype(np.int64)
    return Pictures(np.concatenate(thumbnails), mistakes, gather(rows[mistakes]))


def shrink(images: np.ndarray, side: int = THUMBNAIL) -> np.ndarray:
    """Average square patches (B, S, S, 3) uint8 over equal areas, to (B, side, side, 3) uint8.

    >>> shrink(np.full((1, 50, 50, 3), 7, np.uint8), side=2)[0, :, :, 0].tolist()
    [[7, 7], [7, 7]]
    """
    size = images.shape[1]
    # Row i holds how much of each pixel lies in the i-th of `side` equal stretches.
    edge = np.arange(side + 1) * size / side
    pixel = np.arange(size)
    overlap = np.minimum(edge[1:, None], pixel + 1) - np.maximum(edge[:-1, None], pixel)
    weight = (np.clip(overlap, 0, 1) * side / size).astype(np.float32)
    wide = np.moveaxis(images, 3, 1).astype(np.float32)
    return np.rint(np.moveaxis(weight @ wide @ weight.T, 1, 3)).astype(np.uint8)
