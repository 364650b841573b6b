"""Races: contenders take turns, so that what else the machine does falls on all alike; their figures as tables."""

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from scripts.benchmarks.machine import resident_memory, watch_memory
from scripts.benchmarks.worker import Worker

HEADINGS = ("", "median", "lowest to highest", "unit", "ratio to first", "peak MB")


@dataclass
class Figure:
    """The results of a contender.

    Attributes:
        name: The contender, as the table shows it.
        unit: Of the values.
        values: One a round.
        peak: Most memory of its process during a turn, in megabytes: resident in a race, anonymous over the process
            and its children where a whole command is measured.
    """

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    peak: float | None = None

    @property
    def median(self) -> float:
        """Median of the rounds."""
        return statistics.median(self.values)

    def add(self, value: float, peak: float | None = None) -> None:
        """Add a round."""
        self.values.append(value)
        if peak is not None:
            self.peak = max(self.peak or 0.0, peak)

    def summary(self) -> dict[str, Any]:
        """Return what the JSON file holds."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "low": min(self.values),
            "high": max(self.values),
            "rounds": len(self.values),
            "peak_mb": self.peak,
        }


@dataclass
class Contender:
    """A row of the table: its name, its worker, and the request of each turn, which is answered with a `value`."""

    name: str
    worker: Worker
    request: dict[str, Any]


def race(contenders: Sequence[Contender], rounds: int, unit: str = "images/s") -> list[Figure]:
    """Give each contender a turn in each round, after a round that does not count (networks are compiled in it)."""
    figures = [Figure(contender.name, unit) for contender in contenders]
    for number in range(rounds + 1):
        for contender, figure in zip(contenders, figures, strict=True):
            start = time.perf_counter()
            with watch_memory(contender.worker.process.pid, resident_memory) as peak:
                value = contender.worker.ask(**contender.request)["value"]
            seconds = time.perf_counter() - start
            result = f"{value:,.0f} {unit}" if number > 0 else "ready"
            print(f"  round {number}, {contender.name}: {result} ({seconds:.0f} s)", file=sys.stderr, flush=True)
            if number > 0:
                figure.add(value, peak.megabytes)
    return figures


def print_table(title: str, figures: Sequence[Figure], console: Console) -> None:
    """Print a table on the terminal."""
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if number in (0, 3) else "right")
    for figure in figures:
        table.add_row(*_cells(figure, figures[0]))
    console.print(table)


def write_markdown(title: str, figures: Sequence[Figure]) -> str:
    """Return a table in Markdown."""
    alignment = ("---", "---:", "---:", "---", "---:", "---:")
    rows = [HEADINGS, alignment, *(_cells(figure, figures[0]) for figure in figures)]
    return f"**{title}**\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _cells(figure: Figure, first: Figure) -> list[str]:
    ratio = figure.median / first.median if figure.unit == first.unit and first.median else None
    return [
        figure.name,
        _number(figure.median),
        f"{_number(min(figure.values))} to {_number(max(figure.values))}",
        figure.unit,
        "" if ratio is None else f"{ratio:.2f}",
        "" if figure.peak is None else f"{figure.peak:,.0f}",
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
