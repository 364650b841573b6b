"""Figures of an evaluation, as matplotlib figures; nothing here writes a file.

Without pyplot, which keeps figures alive until they are closed and wants a display.
"""

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

CLASS_NAMES = ("benign", "IDC")
SYNTHETIC_NOTE = "synthetic data"


def _new_figure(title: str, synthetic: bool) -> tuple[Figure, Any]:
    figure = Figure(figsize=(4.6, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(f"{title}\n({SYNTHETIC_NOTE})" if synthetic else title, fontsize=11)
    return figure, axes


def draw_confusion_matrix(matrix: np.ndarray, title: str, synthetic: bool = False) -> Figure:
    """Draw a confusion matrix with counts and the share of each true class.

    Args:
        matrix: (2, 2) counts [[tn, fp], [fn, tp]], rows true.
        title: What was evaluated.
        synthetic: Say so in the title.
    """
    figure, axes = _new_figure(title, synthetic)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    names = (("true negative", "false positive"), ("false negative", "true positive"))
    for row in range(2):
        for column in range(2):
            axes.text(
                column,
                row,
                f"{int(matrix[row, column]):,}\n{shares[row, column]:.1%} of {CLASS_NAMES[row]}\n{names[row][column]}",
                ha="center",
                va="center",
                fontsize=10,
                color="white" if shares[row, column] > 0.55 else "black",
            )
    axes.set_xticks((0, 1), CLASS_NAMES)
    axes.set_yticks((0, 1), CLASS_NAMES, rotation=90, va="center")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


def draw_roc(false_positive_rate: np.ndarray, sensitivity: np.ndarray, auroc: float, synthetic: bool = False) -> Figure:
    """Draw a ROC curve from two arrays (K,) in [0, 1] and the area under it."""
    figure, axes = _new_figure(f"ROC, AUROC {auroc:.3f}", synthetic)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.plot(false_positive_rate, sensitivity)
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    return figure


def draw_reliability(
    mean_predicted: np.ndarray, observed: np.ndarray, count: np.ndarray, synthetic: bool = False
) -> Figure:
    """Draw the share of IDC against the mean probability in bins of equal mass.

    Args:
        mean_predicted: (B,) in [0, 1].
        observed: (B,) in [0, 1].
        count: (B,) patches in each bin.
        synthetic: Say so in the title.
    """
    figure, axes = _new_figure(f"Reliability, {len(count)} bins of {int(np.median(count)):,} patches", synthetic)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.plot(mean_predicted, observed, marker="o", markersize=4)
    axes.set(xlabel="mean probability of IDC", ylabel="share of IDC", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    return figure


def draw_precision_recall(
    precision: np.ndarray, sensitivity: np.ndarray, average_precision: float, prevalence: float, synthetic: bool = False
) -> Figure:
    """Draw a precision-recall curve from two arrays (K,) in [0, 1]; the grey line is the prevalence."""
    figure, axes = _new_figure(f"Precision-recall, average precision {average_precision:.3f}", synthetic)
    axes.axhline(prevalence, color="0.7", linewidth=0.8)
    axes.plot(sensitivity, precision)
    axes.set(xlabel="sensitivity", ylabel="precision", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    return figure
