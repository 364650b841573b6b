"""The files that a judged model leaves behind: the only place that writes them."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cancernet.evaluation.figures import CLASS_NAMES, SYNTHETIC_NOTE, draw_confusion_matrix

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


def predictions_table(index: pd.DataFrame, part: np.ndarray, rows: np.ndarray, logit: np.ndarray) -> pd.DataFrame:
    """Join predictions with what is known of their patches.

    Args:
        index: The store's index table.
        part: (N,) part names of the whole store.
        rows: (M,) store rows that were predicted.
        logit: (M,) float32 logits of IDC.

    Returns:
        One row a patch: path, case, x, y, split, label, logit, probability (of IDC, in [0, 1]).
    """
    table = index.iloc[rows][["path", "case", "x", "y"]].reset_index(drop=True)
    wide = logit.astype(np.float64)
    # Exponentials of non-positive numbers only, so that no logit overflows.
    small = np.exp(-np.abs(wide))
    probability = np.where(wide >= 0, 1, small) / (1 + small)
    return table.assign(
        split=part[rows],
        label=index["label"].to_numpy()[rows],
        logit=logit.astype(np.float32),
        probability=probability.astype(np.float32),
    )


def write_predictions(folder: Path, table: pd.DataFrame) -> None:
    """Write `predictions.csv` and `predictions.parquet`; a reader meets the old files or the new ones, never a part."""
    _replace(folder / "predictions.csv", lambda path: table.to_csv(path, index=False, float_format="%.9g"))
    _replace(folder / "predictions.parquet", lambda path: table.to_parquet(path, index=False))


def write_metrics(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write `metrics.json`; what is undefined (not a number) becomes null."""
    text = json.dumps(_without_nan(metrics), indent=2, ensure_ascii=False) + "\n"
    _replace(folder / "metrics.json", lambda path: path.write_text(text, encoding="utf-8"))


def write_confusion_matrix(folder: Path, metrics: Mapping[str, Any]) -> None:
    """Write `confusion_matrix.png`."""
    title = f"{metrics['patches']:,} {metrics['part']} patches, threshold {metrics['threshold']:g}"
    figure = draw_confusion_matrix(np.array(metrics["confusion_matrix"]), title, metrics["synthetic"])
    _replace(folder / "confusion_matrix.png", lambda path: figure.savefig(path, format="png"))


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
    figures = Table()
    figures.add_column("metric")
    figures.add_column(f"at threshold {metrics['threshold']:g}", justify="right")
    for name in HEADLINE:
        value = metrics[name]
        figures.add_row(name.replace("_", " "), "undefined" if math.isnan(value) else f"{value:.4f}")
    matrix = Table()
    for name in ("true \\ predicted", *CLASS_NAMES):
        matrix.add_column(name, justify="right")
    for name, row in zip(CLASS_NAMES, metrics["confusion_matrix"], strict=True):
        matrix.add_row(name, *(f"{count:,}" for count in row))
    console.print(figures, matrix)


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _replace(path: Path, write: Any) -> None:
    """Write beside the file and rename, so that an interruption leaves no half file."""
    beside = path.with_name(f".{path.name}.partial")
    write(beside)
    os.replace(beside, path)  # noqa: PTH105
