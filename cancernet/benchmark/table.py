"""Figures as a table on the terminal, as Markdown and as JSON."""

from rich.console import Console
from rich.table import Table

from cancernet.benchmark.rounds import Figure


def cells(figure: Figure, first: Figure) -> list[str]:
    """Return a row: name, median, spread, unit, ratio to the first row, peak memory."""
    ratio = figure.median / first.median if figure.unit == first.unit and first.median else None
    return [
        figure.name,
        _number(figure.median),
        f"{_number(min(figure.values))} to {_number(max(figure.values))}",
        figure.unit,
        "" if ratio is None else f"{ratio:.2f}",
        "" if figure.peak is None else f"{figure.peak:,.0f}",
    ]


HEADINGS = ("", "median", "lowest to highest", "unit", "ratio to first", "peak MB")


def print_table(title: str, figures: list[Figure], console: Console) -> None:
    """Print a table on the terminal."""
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if number in (0, 3) else "right")
    for figure in figures:
        table.add_row(*cells(figure, figures[0]))
    console.print(table)


def markdown(title: str, figures: list[Figure]) -> str:
    """Return a table in Markdown."""
    rows = [
        HEADINGS,
        ("---", "---:", "---:", "---", "---:", "---:"),
        *(cells(figure, figures[0]) for figure in figures),
    ]
    return f"**{title}**\n\n" + "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
