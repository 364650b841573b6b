"""Charts of a page: matplotlib's figures as SVG, and numbers into coordinates for the charts that templates draw."""

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from cancernet.evaluation import figures
from cancernet.evaluation.calibration import Reliability
from cancernet.evaluation.figures import (
    draw_agreement,
    draw_precision_recall,
    draw_reliability,
    draw_roc,
    draw_shares,
)
from cancernet.evaluation.idc_share import shares
from cancernet.evaluation.metrics import precision_recall_curve, roc_curve
from cancernet.evaluation.values import CalibrationResult, CaseMetrics, Difference, ShareAgreement

POINTS = 500
"""Points of a curve: more than the pixels that it crosses."""
HISTOGRAM_BINS = 40
COLOURS = {figures.ACCENT: "accent", figures.MUTED: "muted", figures.LINE: "line", "#000000": "ink"}
"""Colours of a figure and the variables of style.css that replace them, so that they follow the reader's scheme."""


@dataclass(frozen=True)
class Frame:
    """A chart of values in [low, high] on both axes, in the units of an SVG's view box."""

    width: float
    height: float
    left: float
    right: float = 12
    top: float = 12
    bottom: float = 40
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
        """Polyline through values."""
        return " ".join(f"{self.x(a):.1f},{self.y(b):.1f}" for a, b in zip(x, y, strict=True))

    def plot(self) -> dict[str, float]:
        """What the script needs to place a point."""
        return {"left": self.left, "top": self.top, "width": self.inner_width, "height": self.inner_height}


STRIPS = Frame(width=660, height=214, left=14, right=14, top=8, bottom=32)
"""Of the strips of dots, one dot a case."""


@dataclass(frozen=True)
class Drawing:
    """A matplotlib figure as the inside of an SVG element.

    Attributes:
        body: Elements, in the page's colours.
        width: Of the view box.
        height: Of the view box.
        plot: Where the axes' [0, 1] lie: left, top, width and height in units of the view box.
    """

    body: Markup
    width: float
    height: float
    plot: dict[str, float]


def inline(figure: Figure, name: str) -> Drawing:
    """Write a figure as SVG that a page can hold: without clip paths or other files, the same each time.

    Args:
        figure: With one pair of linear axes.
        name: Sets its ids apart from those of the page's other drawings.
    """
    (axes,) = figure.axes
    for artist in figure.findobj():
        artist.set_clip_on(False)
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    body = stream.getvalue().partition("</defs>")[2].rpartition("</svg>")[0]
    used = set(re.findall(r'href="#(\w+)"', body))
    body = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", body)
    body = re.sub(r"font-family: [^;]*; ", "", body)
    body = re.sub(r"(\.\d\d)\d+", r"\1", body)  # a hundredth of a point is below what a screen shows
    for colour, variable in COLOURS.items():
        body = body.replace(colour, f"var(--{variable})")
    # An SVG of matplotlib counts points, 1/72 inch, from the top; saving it has laid the axes out.
    left, bottom, right, top = (axes.transLimits + axes.transAxes).transform([(0, 0), (1, 1)]).ravel() * 72 / figure.dpi
    width, height = figure.get_size_inches() * 72
    box = {"left": left, "top": height - top, "width": right - left, "height": top - bottom}
    plot = {side: round(float(at), 4) for side, at in box.items()}
    return Drawing(Markup(" ".join(body.split())), float(width), float(height), plot)


def draw_curves(label: ArrayLike, probability: ArrayLike, prevalence: float) -> dict[str, Drawing]:
    """Draw the ROC and the precision-recall curve, by the name of the point that the script moves along it."""
    roc = roc_curve(label, probability, POINTS)
    pr = precision_recall_curve(label, probability, POINTS)
    return {
        "roc": inline(draw_roc(roc.false_positive_rate, roc.sensitivity, ""), "roc"),
        "pr": inline(draw_precision_recall(pr.precision, pr.recall, prevalence, ""), "pr"),
    }


def draw_calibration(calibration: CalibrationResult) -> dict[str, Drawing]:
    """Draw the reliability before and after the temperature."""
    drawings = {}
    for when, summary in (("before", calibration.before), ("after", calibration.after)):
        columns = zip(*(dict(item).values() for item in summary.reliability), strict=True)
        drawings[when] = inline(draw_reliability(Reliability(*map(np.array, columns)), ""), f"reliability-{when}")
    return drawings


def draw_idc_shares(rows: Sequence[CaseMetrics], agreement: ShareAgreement) -> dict[str, Drawing]:
    """Draw the share of IDC by case, predicted against the expert's, and their differences with limits."""
    both = shares(rows)
    lines = (agreement.mean_difference.estimate, agreement.lower_limit, agreement.upper_limit)
    defined = [line for line in lines if line is not None]
    return {
        "scatter": inline(draw_shares(*both, ""), "shares"),
        "differences": inline(draw_agreement(*both, defined, ""), "share-differences"),
    }


def draw_histogram(label: np.ndarray, probability: np.ndarray) -> dict[str, Any]:
    """Share of each class by probability, as two stepped outlines in a low frame."""
    frame = Frame(width=660, height=150, left=12)
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


def draw_differences(rows: Sequence[Difference]) -> Frame:
    """Frame of a forest plot of differences: symmetric, just wide enough for the widest interval."""
    ends = (end for row in rows for end in (row.low, row.high))
    reach = 1.1 * max(0.01, *(abs(end) for end in ends if end is not None))
    return Frame(width=360, height=max(1, len(rows)) * 28 + 20, left=12, bottom=0, low=-reach, high=reach)
