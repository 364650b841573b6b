"""The comparison of runs as a page and as a table on standard output."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cancernet.errors import InputError
from cancernet.evaluation.comparison import compare_runs
from cancernet.evaluation.metrics import LOSSES, LOWER_IS_BETTER, METRICS, RATES
from cancernet.evaluation.records import write_record
from cancernet.evaluation.report import charts
from cancernet.evaluation.report.formatting import (
    NAMES,
    UNDEFINED,
    figure,
    fill,
    interval,
    signed,
    threshold,
)
from cancernet.evaluation.results import ComparedRun, Comparison
from cancernet.evaluation.run_folder import read_run
from cancernet.files import write_text

SHOWN = ("data", "synthetic", "split", "seed", "folds", "fold", "leaks", "checkpoint", "version")
"""What the table says of each run: runs that share their test patches may have been trained on different ones."""


def compare(run_dir: list[Path], output: Path = Path("comparison")) -> None:
    """Compare runs on the same test patches: metrics of each run, and its difference from the first run.

    Args:
        run_dir: Two run folders or more that `cancernet test` wrote into; the others are compared with the first.
        output: Folder that `comparison.json` and `comparison.html` are written to.
    """
    if len(run_dir) < 2:
        raise InputError("compare: one run given; give two or more run folders")
    result = compare_runs([read_run(folder) for folder in run_dir])
    _print(result)
    output = Path(output)
    print(write_record(output / "comparison.json", result))
    print(write_text(output / "comparison.html", render(result)))


def render(result: Comparison) -> str:
    """Return the comparison as a page that needs no other file."""
    plots = []
    for run in result.runs[1:]:
        differences = run.difference_at_validation_threshold or run.difference_at_threshold
        assert differences is not None, "only the first run has none"
        rows = [{"name": NAMES[name], **dict(differences[name])} for name in METRICS if name not in LOSSES]
        plots.append({"frame": charts.draw_differences(rows), "rows": rows})
    return fill("comparison.html.j2", result=result, plots=plots, lower=LOWER_IS_BETTER, changes=SHOWN)


def _print(result: Comparison) -> None:
    console = Console()
    console.print(
        f"\n{result.patches:,} test patches of {result.cases} cases, prevalence {result.prevalence:.3f}. "
        f"Intervals: {100 * result.level:g} %, {result.draws:,} paired draws of whole cases."
    )
    for warning in result.warnings:
        console.print(Text(warning, style="bold red"))
    table = Table()
    table.add_column("")
    for number, run in enumerate(result.runs):
        table.add_column(Text(run.name), justify="right")
        if number:
            table.add_column("minus the first", justify="right")
    for key in SHOWN:
        cells = [[_said(run[key]), *([""] if number else [])] for number, run in enumerate(result.runs)]
        table.add_row(key, *(Text(cell) for pair in cells for cell in pair))
    for key, title in (("threshold", "at 0.5"), ("validation_threshold", "at validation's threshold")):
        table.add_section()
        table.add_row(Text(title, style="bold"), *_thresholds(result, key))
        for name in METRICS:
            if key == "threshold" or name in RATES:
                table.add_row(NAMES[name], *_cells(result.runs, key, name))
    console.print(table)


def _said(value: object) -> str:
    """Write a setting of a run."""
    if value is None:
        return UNDEFINED
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _thresholds(result: Comparison, key: str) -> list[str]:
    cells: list[str] = []
    for number, run in enumerate(result.runs):
        cells += [threshold(run.threshold) if key == "validation_threshold" else "", *([""] if number else [])]
    return cells


def _cells(runs: Sequence[ComparedRun], key: str, name: str) -> list[str]:
    cells = []
    for number, run in enumerate(runs):
        value = None if run[f"at_{key}"] is None else run[f"at_{key}"][name]
        cells.append(figure(value.estimate if value else None) + (f"\n{interval(value)}" if value else ""))
        if number:
            differences = run[f"difference_at_{key}"]
            change = None if differences is None else differences[name]
            cells.append(signed(change.estimate if change else None) + (f"\n{interval(change)}" if change else ""))
    return cells
