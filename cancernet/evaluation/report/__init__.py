"""The page of a tested model: one HTML file that needs no network, built from a run folder without torch."""

from pathlib import Path

from cancernet.evaluation.report.model_card import write_model_card
from cancernet.evaluation.report.page import render
from cancernet.evaluation.report.pooling import subject_of
from cancernet.evaluation.run_folder import REPORT, read_run
from cancernet.files import write_text

__all__ = ["report", "write_report"]


def write_report(folder: str | Path) -> Path:
    """Write `report.html` and `model_card.md` into a run folder, from what `test` left there.

    Returns:
        The page's path.

    Raises:
        InputError: Something in the folder is missing, broken or does not belong to the rest.
    """
    folder = Path(folder)
    page = write_text(folder / REPORT, render(subject_of([read_run(folder)])))
    write_model_card(folder)
    return page


def report(run_dir: list[Path], output: Path | None = None) -> None:
    """Build the page of a run again, or pool the folds of a cross-validation into one page.

    Args:
        run_dir: Run folders that `cancernet test` wrote into; several are the folds of one cross-validation.
        output: Where the page goes; `report.html` in the run folder where not given, for several in the current one.
    """
    if len(run_dir) == 1 and output is None:
        print(write_report(run_dir[0]))
        return
    page = render(subject_of([read_run(folder) for folder in run_dir]))
    print(write_text(Path(REPORT) if output is None else output, page))
