"""Read and write what `context` leaves in a folder of predictions: `context*.json`, its patches as `context*.csv`."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from cancernet.errors import InputError
from cancernet.evaluation.records import read_record, write_record
from cancernet.evaluation.results import ContextResult
from cancernet.files import write_text

AGAIN = "run `cancernet context` again, or remove it"


def write_context(folder: Path, stem: str, result: ContextResult, table: pd.DataFrame) -> tuple[Path, Path]:
    """Write `STEM.csv` and `STEM.json` of the context stage; return both paths."""
    text = table.to_csv(index=False, float_format="%.9g")
    return write_text(folder / f"{stem}.csv", text), write_record(folder / f"{stem}.json", result)


def read_contexts(folder: Path) -> Iterator[tuple[Path, ContextResult]]:
    """Read each result of the context stage in a run folder, or in a `predict-...` folder there, by path.

    Raises:
        InputError: One is broken.
    """
    for path in sorted([*folder.glob("context*.json"), *folder.glob("predict-*/context*.json")]):
        yield path, read_record(ContextResult, path, AGAIN)


def read_context_table(path: Path) -> pd.DataFrame:
    """Read the patches of a context result: the CSV file next to its JSON file.

    Raises:
        InputError: It is missing or broken.
    """
    path = path.with_suffix(".csv")
    columns = ["case", "x", "y", "label", "probability", "context_probability", "neighbours"]
    try:
        table = pd.read_csv(path, dtype={"case": str}, keep_default_na=False)[columns]
        return table.assign(**{name: pd.to_numeric(table[name]) for name in columns[1:]})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); {AGAIN}") from error
