"""Figures of an evaluation, as matplotlib figures; nothing here writes a file.

Without pyplot, which keeps figures alive until they are closed and wants a display.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from cancernet.evaluation.calibration import Reliability

CLASS_NAMES = ("benign", "IDC")
SYNTHETIC_NOTE = "synthetic data"
ACCENT, MUTED, LINE = "#5b2a86", "#57546a", "#d9d6e2"
"""Colours of curves, of reference lines and of the grid."""
REFERENCE: dict[str, Any] = {"color": MUTED, "linewidth": 0.8, "linestyle": "--"}
DOTS: dict[str, Any] = {"color": ACCENT, "alpha": 0.65, "linestyle": "none", "marker": "o", "markersize": 4.5}
"""Of cases, one dot each."""


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
    for row, column in np.ndindex(2, 2):
        share = shares[row, column]
        text = f"{int(matrix[row, column]):,}\n{share:.1%} of {CLASS_NAMES[row]}\n{names[row][column]}"
        colour = "white" if share > 0.55 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=10, color=colour)
    axes.set_xticks((0, 1), CLASS_NAMES)
    axes.set_yticks((0, 1), CLASS_NAMES, rotation=90, va="center")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


def draw_roc(false_positive_rate: np.ndarray, sensitivity: np.ndarray, title: str, synthetic: bool = False) -> Figure:
    """Draw a ROC curve from two arrays (K,) in [0, 1]; the dashed line is chance."""
    figure, axes = _new_figure(title, synthetic)
    axes.plot([0, 1], [0, 1], **REFERENCE)
    axes.plot(false_positive_rate, sensitivity, color=ACCENT)
    _label_fractions(axes, "1 − specificity", "sensitivity (recall)")
    return figure


def draw_precision_recall(
    precision: np.ndarray, sensitivity: np.ndarray, prevalence: float, title: str, synthetic: bool = False
) -> Figure:
    """Draw a precision-recall curve from two arrays (K,) in [0, 1]; the dashed line is the prevalence."""
    figure, axes = _new_figure(title, synthetic)
    axes.plot([0, 1], [prevalence, prevalence], **REFERENCE)
    axes.plot(sensitivity, precision, color=ACCENT)
    _label_fractions(axes, "sensitivity (recall)", "precision")
    return figure


def draw_reliability(bins: Reliability, title: str, synthetic: bool = False) -> Figure:
    """Draw the share of IDC, with its 95 % Wilson interval, against the mean probability in bins of equal mass."""
    figure, axes = _new_figure(title, synthetic)
    axes.plot([0, 1], [0, 1], **REFERENCE)
    axes.vlines(bins.mean_predicted, bins.low, bins.high, color=ACCENT, alpha=0.65)
    axes.plot(bins.mean_predicted, bins.observed, color=ACCENT, linewidth=1, marker="o", markersize=4.5)
    _label_fractions(axes, "mean predicted probability", "observed share of IDC")
    return figure


def draw_shares(expert: np.ndarray, predicted: np.ndarray, title: str, synthetic: bool = False) -> Figure:
    """Draw the predicted share of IDC against the expert's, both (K,) in [0, 1]; the dashed line is equality."""
    figure, axes = _new_figure(title, synthetic)
    axes.plot([0, 1], [0, 1], **REFERENCE)
    axes.plot(expert, predicted, **DOTS)
    _label_fractions(axes, "expert's share of IDC", "predicted share of IDC")
    return figure


def draw_agreement(
    expert: np.ndarray, predicted: np.ndarray, lines: Sequence[float], title: str, synthetic: bool = False
) -> Figure:
    """Draw the difference of two shares, both (K,) in [0, 1], against their mean (Bland and Altman 1986).

    Args:
        expert: Shares by the expert.
        predicted: Shares by the model.
        lines: Mean difference and limits of agreement, drawn across.
        title: What was evaluated.
        synthetic: Say so in the title.
    """
    figure, axes = _new_figure(title, synthetic)
    for line in lines:
        axes.plot([0, 1], [line, line], **REFERENCE)
    axes.plot((expert + predicted) / 2, predicted - expert, **DOTS)
    _label_fractions(axes, "mean of both shares", "predicted share less the expert's")
    reach = 1.1 * max(0.1, *np.abs(predicted - expert), *map(abs, lines))
    axes.set_ylim(-reach, reach)
    axes.yaxis.set_major_locator(MaxNLocator(7))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    return figure


def _label_fractions(axes: Any, x: str, y: str) -> None:
    """Name two axes of fractions, a little longer than [0, 1] so that curves along their ends can be seen."""
    ticks, names = (0, 0.25, 0.5, 0.75, 1), ("0", "0.25", "0.5", "0.75", "1")
    axes.set(xlabel=x, ylabel=y, xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names)
    axes.grid(color=LINE)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
