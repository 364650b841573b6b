"""Geometry of the charts: numbers into coordinates; the templates draw them and the script moves their points."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cancernet.evaluation.metrics import precision_recall_curve, roc_curve
from cancernet.evaluation.values import ReliabilityBin

POINTS = 500
"""Points of a curve: more than the pixels that it crosses."""
HISTOGRAM_BINS = 40


@dataclass(frozen=True)
class Frame:
    """A chart of values in [low, high] on both axes, in the units of an SVG's view box."""

    width: float = 320
    height: float = 300
    left: float = 46
    right: float = 12
    top: float = 12
    bottom: float = 44
    low: float = 0.0
    high: float = 1.0

    @property
    def inner_width(self) -> float:
        """Length of the horizontal axis."""
        return self.width - self.left - self.right

    @property
    def inner_height(self) -> float:
        """Length of the vertical axis."""
        return self.height - self.top - self.bottom

    def x(self, value: float) -> float:
        """Place a value on the horizontal axis."""
        return round(self.left + (value - self.low) / (self.high - self.low) * self.inner_width, 2)

    def y(self, value: float) -> float:
        """Place a fraction on the vertical axis, which always goes from 0 to 1."""
        return round(self.top + (1 - value) * self.inner_height, 2)

    def points(self, x: Iterable[float], y: Iterable[float]) -> str:
        """Polyline through values; those that are not defined are left out."""
        pairs = ((a, b) for a, b in zip(x, y, strict=True) if np.isfinite(a) and np.isfinite(b))
        return " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in pairs)

    def plot(self) -> dict[str, float]:
        """What the script needs to place a point."""
        return {"left": self.left, "top": self.top, "width": self.inner_width, "height": self.inner_height}


SQUARE = Frame()


def draw_roc(label: ArrayLike, probability: ArrayLike) -> str:
    """ROC curve as a polyline in `SQUARE`; empty where a class is absent."""
    curve = roc_curve(label, probability, POINTS)
    return SQUARE.points(curve.false_positive_rate, curve.sensitivity)


def draw_precision_recall(label: ArrayLike, probability: ArrayLike) -> str:
    """Precision-recall curve as a polyline in `SQUARE`; empty without IDC."""
    curve = precision_recall_curve(label, probability, POINTS)
    return SQUARE.points(curve.recall, curve.precision)


def draw_reliability(bins: Sequence[ReliabilityBin]) -> dict[str, Any]:
    """Line and Wilson bars of a reliability diagram, in `SQUARE`, from the bins of `calibration_summary`."""
    marks = [
        {
            "x": SQUARE.x(item["mean_predicted"]),
            "y": SQUARE.y(item["observed"]),
            "low": SQUARE.y(item["low"]),
            "high": SQUARE.y(item["high"]),
        }
        for item in bins
    ]
    line = SQUARE.points((item["mean_predicted"] for item in bins), (item["observed"] for item in bins))
    return {"line": line, "marks": marks}


def draw_histogram(label: np.ndarray, probability: np.ndarray) -> dict[str, Any]:
    """Share of each class by probability, as two stepped outlines in a low frame."""
    frame = Frame(width=660, height=150, left=12, bottom=40)
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    shares = []
    for value in (0, 1):
        counts, _ = np.histogram(probability[label == value], edges)
        shares.append(counts / max(1, counts.sum()))
    highest = max(float(share.max()) for share in shares) or 1.0
    outlines = []
    for share in shares:
        x = np.repeat(edges, 2)
        y = np.concatenate([[0], np.repeat(share / highest, 2), [0]])
        outlines.append(frame.points(x, y))
    return {"frame": frame, "benign": outlines[0], "idc": outlines[1], "highest": highest}


def draw_differences(rows: Sequence[Mapping[str, Any]]) -> Frame:
    """Frame of a forest plot of differences: symmetric, just wide enough for the widest interval."""
    ends = [abs(row[end]) for row in rows for end in ("low", "high") if row[end] is not None]
    reach = max([0.01, *ends]) * 1.1
    return Frame(width=360, height=max(1, len(rows)) * 28 + 20, left=12, bottom=0, low=-reach, high=reach)
