"""The comparison of runs as a page and as a table on standard output."""

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cancernet.errors import InputError
from cancernet.evaluation.comparison import compare_runs
from cancernet.evaluation.metrics import LOSSES, LOWER_IS_BETTER, METRICS, RATES
from cancernet.evaluation.records import write_record
from cancernet.evaluation.report import charts
from cancernet.evaluation.report.formatting import NAMES, UNDEFINED, cell, fill, threshold
from cancernet.evaluation.results import Comparison
from cancernet.evaluation.run_folder import read_run
from cancernet.files import write_text

T = TypeVar("T")
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
        rows = {NAMES[name]: value for name, value in differences if name not in LOSSES}
        plots.append({"frame": charts.draw_differences([*rows.values()]), "rows": rows})
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
    for title in _columns((run.name, "minus the first") for run in result.runs):
        table.add_column(Text(title), justify="right")
    for key in SHOWN:
        table.add_row(key, *_columns((Text(_said(getattr(run, key))), Text()) for run in result.runs))
    fixed = _columns((run.at_threshold, run.difference_at_threshold) for run in result.runs)
    chosen = _columns((run.at_validation_threshold, run.difference_at_validation_threshold) for run in result.runs)
    thresholds = _columns((threshold(run.threshold), "") for run in result.runs)
    for title, heads, names, columns in (
        ("at 0.5", [], METRICS, fixed),
        ("at validation's threshold", thresholds, RATES, chosen),
    ):
        table.add_section()
        table.add_row(Text(title, style="bold"), *heads)
        for name in names:
            table.add_row(NAMES[name], *(cell(None if one is None else getattr(one, name)) for one in columns))
    console.print(table)


def _said(value: object) -> str:
    """Write a setting of a run."""
    if value is None:
        return UNDEFINED
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _columns(pairs: Iterable[tuple[T, T]]) -> list[T]:
    """Put each run's entry next to that of its difference from the first run, which has none."""
    (first, _), *others = pairs
    return [first, *chain.from_iterable(others)]
