"""The page of a judged model: one HTML file that needs no network, built from a run folder without torch."""

import os
from pathlib import Path

from cancernet.evaluation.report.page import render
from cancernet.evaluation.report.pooling import subject_of
from cancernet.evaluation.report.reading import Run, read_run

__all__ = ["report", "write_report"]

FILE = "report.html"


def write_report(folder: str | Path) -> Path:
    """Write `report.html` into a run folder, from what `test` left there.

    Returns:
        The page's path.

    Raises:
        InputError: Something in the folder is missing, broken or does not belong to the rest.
    """
    folder = Path(folder)
    return _write([read_run(folder)], folder / FILE)


def report(run_dir: list[Path], output: Path | None = None) -> None:
    """Build the page of a run again, or pool the folds of a cross-validation into one page.

    Args:
        run_dir: Run folders that `cancernet test` wrote into; several are the folds of one cross-validation.
        output: Where the page goes; `report.html` in the run folder where not given, for several in the current one.
    """
    from cancernet.evaluation.model_card import write_model_card

    runs = [read_run(folder) for folder in run_dir]
    if output is None:
        output = runs[0].folder / FILE if len(runs) == 1 else Path(FILE)
    print(_write(runs, Path(output)))
    if len(runs) == 1:
        print(write_model_card(runs[0].folder))


def _write(runs: list[Run], path: Path) -> Path:
    page = render(subject_of(runs))
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.partial")
    beside.write_text(page, encoding="utf-8")
    os.replace(beside, path)  # noqa: PTH105
    return path
