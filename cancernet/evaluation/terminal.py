"""Test metrics as tables on standard output."""

from rich.console import Console
from rich.table import Table

from cancernet.evaluation.figures import CLASS_NAMES, SYNTHETIC_NOTE
from cancernet.evaluation.metrics import RANKS, THRESHOLD_FREE
from cancernet.evaluation.results import TestMetrics
from cancernet.evaluation.values import AtThreshold, Interval

HEADLINE = (*RANKS, "balanced_accuracy", "sensitivity", "specificity", "precision", "npv", "f1", "mcc", "accuracy")
"""Metrics of the table, in its order."""


def print_metrics(metrics: TestMetrics) -> None:
    """Print the headline metrics and the confusion matrices."""
    console = Console()
    source = f"{metrics.data} ({SYNTHETIC_NOTE})" if metrics.synthetic else metrics.data
    console.print(
        f"\nThe {metrics.part} part of {source}, split {metrics.split}: {metrics.patches:,} patches of "
        f"{metrics.cases} cases, prevalence {metrics.prevalence:.3f}. The positive class is IDC."
    )
    if metrics.part_of is not None:
        console.print(f"[bold red]Part of the test: {metrics.part_of}.[/]")
    columns: list[AtThreshold] = [metrics]
    intervals = [metrics.intervals.at_threshold]
    chosen, chosen_intervals = metrics.at_validation_threshold, metrics.intervals.at_validation_threshold
    if chosen is not None and chosen_intervals is not None:
        columns.append(chosen)
        intervals.append(chosen_intervals)
    table = Table()
    table.add_column("metric", no_wrap=True)
    for values in columns:
        table.add_column(f"at {values.threshold:.4g}", justify="right")
        table.add_column(f"{metrics.intervals.level:.0%} interval", justify="right")
    for name in HEADLINE:
        row = [name.replace("_", " ")]
        for values, bounds in zip(columns, intervals, strict=True):
            value = getattr(metrics if name in THRESHOLD_FREE else values, name)
            row += ["undefined" if value is None else f"{value:.4f}", _interval(getattr(bounds, name))]
        table.add_row(*row)
    console.print(table, "Intervals: bootstrap over whole cases.", soft_wrap=True)
    if chosen is not None:
        console.print(f"The threshold {chosen.threshold:.4g} was chosen on validation (Youden).")
    for values in columns:
        console.print(_matrix(values))


def _matrix(values: AtThreshold) -> Table:
    table = Table()
    for name in (f"true \\ predicted at {values.threshold:.4g}", *CLASS_NAMES):
        table.add_column(name, justify="right")
    for name, row in zip(CLASS_NAMES, values.confusion_matrix, strict=True):
        table.add_row(name, *(f"{count:,}" for count in row))
    return table


def _interval(interval: Interval) -> str:
    return "" if interval.low is None else f"{interval.low:.3f} to {interval.high:.3f}"
