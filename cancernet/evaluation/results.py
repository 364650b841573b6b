"""The files that a judged model leaves behind: the only place that writes them."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cancernet.evaluation.calibration import apply_temperature, sigmoid
from cancernet.evaluation.figures import CLASS_NAMES, SYNTHETIC_NOTE, draw_confusion_matrix
from cancernet.files import replacing, write_json

if TYPE_CHECKING:
    from rich.table import Table

HEADLINE = (
    "auroc",
    "average_precision",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "precision",
    "npv",
    "f1",
    "mcc",
    "accuracy",
)
"""The figures of the table on the terminal, in its order."""
THUMBNAIL = 8
"""Side of a thumbnail in pixels."""
MISTAKES = 24
"""Pictures of each kind of mistake."""
PATCHES_AT_ONCE = 1024
"""Patches shrunk at a time: 30 MB in single precision."""


def predictions_table(
    index: pd.DataFrame, part: np.ndarray, rows: np.ndarray, logit: np.ndarray, temperature: float | None = None
) -> pd.DataFrame:
    """Join predictions with what is known of their patches.

    Args:
        index: The store's index table.
        part: (N,) part names of the whole store.
        rows: (M,) store rows that were predicted.
        logit: (M,) float32 logits of IDC.
        temperature: Of the checkpoint, where it was calibrated.

    Returns:
        One row a patch: path, case, x, y, split, label, logit, probability (of IDC, in [0, 1]), probability_calibrated
        (NaN without a temperature).
    """
    table = index.iloc[rows][["path", "case", "x", "y"]].reset_index(drop=True)
    calibrated = np.full(len(rows), np.nan) if temperature is None else apply_temperature(logit, temperature)
    return table.assign(
        split=part[rows],
        label=index["label"].to_numpy()[rows],
        logit=logit.astype(np.float32),
        probability=sigmoid(logit).astype(np.float32),
        probability_calibrated=calibrated.astype(np.float32),
    )


def choose_pictures(
    table: pd.DataFrame, gather: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, threshold: float
) -> dict[str, np.ndarray]:
    """Take what the report shows of the images: a thumbnail of each patch, and the most confident mistakes.

    Args:
        table: M predictions (see `predictions_table`).
        gather: Reads patches (B, 50, 50, 3) uint8 by store row.
        rows: (M,) store rows of the predictions.
        threshold: What the mistakes are mistakes at.

    Returns:
        `thumbnail` (M, 8, 8, 3) uint8, in the order of the table; `mistake_row` (K,) int64, rows of the table: at most
        `MISTAKES` false positives, the highest probability first, then as many false negatives, the lowest first, both
        of the judged patches only; `mistake_image` (K, 50, 50, 3) uint8.
    """
    thumbnails = [
        shrink(gather(rows[start : start + PATCHES_AT_ONCE])) for start in range(0, len(rows), PATCHES_AT_ONCE)
    ]
    probability, label = table["probability"].to_numpy(), table["label"].to_numpy()
    judged = (table["split"] == "test").to_numpy()
    false_positives = np.flatnonzero(judged & (label == 0) & (probability >= threshold))
    false_negatives = np.flatnonzero(judged & (label == 1) & (probability < threshold))
    # By logit: many a probability is 1 in single precision.
    logit = table["logit"].to_numpy()
    first_positives = false_positives[np.argsort(-logit[false_positives], kind="stable")][:MISTAKES]
    first_negatives = false_negatives[np.argsort(logit[false_negatives], kind="stable")][:MISTAKES]
    mistakes = np.concatenate([first_positives, first_negatives]).astype(np.int64)
    return {
        "thumbnail": np.concatenate(thumbnails),
        "mistake_row": mistakes,
        "mistake_image": gather(rows[mistakes]),
    }


def shrink(images: np.ndarray, side: int = THUMBNAIL) -> np.ndarray:
    """Average square patches (B, S, S, 3) uint8 over equal areas, to (B, side, side, 3) uint8."""
    size = images.shape[1]
    # Row i holds how much of each pixel lies in the i-th of `side` equal stretches.
    edge = np.arange(side + 1) * size / side
    pixel = np.arange(size)
    overlap = np.minimum(edge[1:, None], pixel + 1) - np.maximum(edge[:-1, None], pixel)
    weight = (np.clip(overlap, 0, 1) * side / size).astype(np.float32)
    wide = np.moveaxis(images, 3, 1).astype(np.float32)
    return np.rint(np.moveaxis(weight @ wide @ weight.T, 1, 3)).astype(np.uint8)


def write_predictions(folder: Path, table: pd.DataFrame) -> None:
    """Write `predictions.csv` and `predictions.parquet`; a reader meets the old files or the new ones, never a part."""
    with replacing(folder / "predictions.csv") as path:
        table.to_csv(path, index=False, float_format="%.9g")
    with replacing(folder / "predictions.parquet") as path:
        table.to_parquet(path, index=False)


def write_pictures(folder: Path, pictures: Mapping[str, np.ndarray]) -> None:
    """Write `pictures.npz` (see `choose_pictures`)."""
    # An open file: given a path, NumPy appends its own ending to the name.
    with replacing(folder / "pictures.npz") as path, path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **pictures)


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write `metrics.json`; what is undefined (not a number) becomes null."""
    write_json(folder / "metrics.json", metrics)


def write_origin(folder: Path, origin: Mapping[str, Any]) -> None:
    """Write `predictions.json`: what predictions that nobody judged come from (see `reading.Origin`)."""
    write_json(folder / "predictions.json", origin)


def write_confusion_matrix(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write `confusion_matrix.png`."""
    title = f"{metrics['patches']:,} {metrics['part']} patches, threshold {metrics['threshold']:g}"
    figure = draw_confusion_matrix(np.array(metrics["confusion_matrix"]), title, metrics["synthetic"])
    with replacing(folder / "confusion_matrix.png") as path:
        figure.savefig(path, format="png")


def print_metrics(metrics: Mapping[str, Any]) -> None:
    """Print the headline figures and the confusion matrix as tables on standard output."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    source = f"{metrics['data']} ({SYNTHETIC_NOTE})" if metrics["synthetic"] else metrics["data"]
    console.print(
        f"\nThe {metrics['part']} part of {source}, split {metrics['split']}: {metrics['patches']:,} patches of "
        f"{metrics['cases']} cases, prevalence {metrics['prevalence']:.3f}. The positive class is IDC."
    )
    chosen = metrics["at_validation_threshold"]
    columns = [("at_threshold", metrics)]
    if chosen is not None:
        columns.append(("at_validation_threshold", {**metrics, **chosen}))
    figures = Table()
    figures.add_column("metric", no_wrap=True)
    for _, values in columns:
        figures.add_column(f"at {values['threshold']:.4g}", justify="right")
        figures.add_column(f"{metrics['intervals']['level']:.0%} interval", justify="right")
    for name in HEADLINE:
        row = [name.replace("_", " ")]
        for column, values in columns:
            interval = metrics["intervals"][column][name]
            row += [_say(values[name]), _say_interval(interval)]
        figures.add_row(*row)
    console.print(figures, "Intervals: bootstrap over whole cases.", soft_wrap=True)
    if chosen is not None:
        console.print(f"The threshold {chosen['threshold']:.4g} was chosen on validation (Youden).")
    for _, values in columns:
        console.print(_matrix_table(values))


def _matrix_table(values: Mapping[str, Any]) -> "Table":
    from rich.table import Table

    table = Table()
    for name in (f"true \\ predicted at {values['threshold']:.4g}", *CLASS_NAMES):
        table.add_column(name, justify="right")
    for name, row in zip(CLASS_NAMES, values["confusion_matrix"], strict=True):
        table.add_row(name, *(f"{count:,}" for count in row))
    return table


def _say(value: float) -> str:
    return "undefined" if math.isnan(value) else f"{value:.4f}"


def _say_interval(interval: Mapping[str, float]) -> str:
    return "" if math.isnan(interval["low"]) else f"{interval['low']:.3f} to {interval['high']:.3f}"
