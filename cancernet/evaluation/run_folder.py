"""What a test left in a run folder, read and checked: pages are built from this alone."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cancernet.errors import InputError
from cancernet.evaluation.metrics import confusion

AGAIN = "run `cancernet test` (or `predict`) again"
NEEDED = (
    *("auroc", "average_precision", "confusion_matrix", "threshold", "prevalence", "patches", "cases", "part"),
    *("brier", "log_loss", "at_validation_threshold", "operating_points", "calibration", "intervals", "per_case"),
    *("case_summary", "worst_tenth", "baselines", "data", "fingerprint", "synthetic", "split", "seed", "folds"),
    *("fold", "version", "checkpoint", "leaks", "data_flow", "leak_proof", "environment"),
)
"""Entries of `metrics.json` that pages are built from."""
COLUMNS = ("path", "case", "x", "y", "split", "label", "logit", "probability")


@dataclass(frozen=True)
class Pictures:
    """Thumbnails of all predictions and the patches of the most confident mistakes.

    Attributes:
        thumbnail: (M, T, T, 3) uint8, RGB, one a row of the predictions.
        mistake_row: (K,) int64, rows of the predictions.
        mistake_image: (K, H, W, 3) uint8, RGB.
    """

    thumbnail: np.ndarray
    mistake_row: np.ndarray
    mistake_image: np.ndarray


@dataclass(frozen=True)
class Origin:
    """What predictions come from.

    Attributes:
        data: Name of the data.
        fingerprint: Of its source.
        synthetic: Whether a program drew it.
        leaks: Whether single patches were split, so that every case trains.
        checkpoint: Name of the file.
        threshold: The one that validation chose; None where the checkpoint was not calibrated.
        temperature: Likewise.
    """

    data: str
    fingerprint: str
    synthetic: bool
    leaks: bool
    checkpoint: str
    threshold: float | None
    temperature: float | None


@dataclass(frozen=True)
class Run:
    """A run folder after `test`.

    Attributes:
        folder: Where it lies.
        metrics: `metrics.json`.
        predictions: One row a patch, numbered from 0; `case` and `path` are strings.
        pictures: What the store's images looked like; None where the folder holds none.
        configuration: `config.yaml` as text; None where the folder holds none.
    """

    folder: Path
    metrics: dict[str, Any]
    predictions: pd.DataFrame
    pictures: Pictures | None
    configuration: str | None

    @property
    def judged(self) -> pd.DataFrame:
        """The rows that count: those of the test part."""
        return self.predictions[self.predictions["split"] == "test"]

    @property
    def name(self) -> str:
        """What tells this run from others on a page: the last two folders of its path."""
        parts = self.folder.resolve().parts
        return "/".join(parts[-2:]) if len(parts) > 2 else self.folder.name


def read_run(folder: str | Path) -> Run:
    """Read a run folder.

    Raises:
        InputError: Something is missing, broken, or does not belong to the rest.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a run folder that `cancernet test` wrote into")
    metrics = read_metrics(folder)
    predictions = read_predictions(folder)
    run = Run(folder, metrics, predictions, _read_pictures(folder, len(predictions)), _read_configuration(folder))
    _check_belonging(run)
    return run


def read_metrics(folder: Path) -> dict[str, Any]:
    """Read `metrics.json` of a run folder.

    Raises:
        InputError: It is missing, broken or of another version.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        raise InputError(f"{folder}: no metrics.json there; give a run folder that `cancernet test` wrote")
    return read_object(path, NEEDED, AGAIN)


def read_object(path: Path, needed: Sequence[str], again: str) -> dict[str, Any]:
    """Read a JSON file that one of our commands wrote.

    Args:
        path: The file.
        needed: Entries that it must have.
        again: How to get a whole one, for the message.

    Raises:
        InputError: It is broken or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({_first_line(error)}); {again}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__} where an object belongs; {again}")
    missing = [name for name in needed if name not in content]
    if missing:
        raise InputError(f"{path}: lacks {', '.join(missing[:4])}, so another version wrote it; {again}")
    return dict(content)


def origin_of(metrics: Mapping[str, Any]) -> Origin:
    """Return what `metrics.json` says of the predictions beside it."""
    chosen, calibration = metrics["at_validation_threshold"], metrics["calibration"]
    return Origin(
        **{name: metrics[name] for name in ("data", "fingerprint", "synthetic", "leaks", "checkpoint")},
        threshold=None if chosen is None else chosen["threshold"],
        temperature=None if calibration is None else calibration["temperature"],
    )


def read_origin(folder: Path) -> Origin:
    """Read what the predictions of a folder come from, whether `test` or `predict` wrote them.

    Raises:
        InputError: Neither left word of it, or that is broken.
    """
    path, names = folder / "predictions.json", [field.name for field in fields(Origin)]
    if path.is_file():
        content = read_object(path, names, AGAIN)
        return Origin(**{name: content[name] for name in names})
    if not (folder / "metrics.json").is_file():
        raise InputError(f"{folder}: neither metrics.json nor predictions.json there; {AGAIN}")
    return origin_of(read_metrics(folder))


def read_predictions(folder: Path) -> pd.DataFrame:
    """Read the predictions of a folder: one row a patch, numbered from 0; `case` and `path` are strings.

    Raises:
        InputError: They are missing or broken.
    """
    parquet, csv = folder / "predictions.parquet", folder / "predictions.csv"
    try:
        if parquet.is_file():
            table = pd.read_parquet(parquet)
        elif csv.is_file():
            # Names that look like numbers, or like "NA", stay the names they are.
            table = pd.read_csv(csv, dtype={"path": str, "case": str, "split": str}, keep_default_na=False)
        else:
            raise InputError(f"{folder}: neither predictions.parquet nor predictions.csv there; {AGAIN}")
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: predictions cannot be read ({_first_line(error)}); {AGAIN}") from error
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise InputError(f"{folder}: predictions lack the column {', '.join(missing)}; {AGAIN}")
    try:
        numbers = {name: pd.to_numeric(table[name]) for name in ("x", "y", "label", "logit", "probability")}
    except (ValueError, TypeError) as error:
        raise InputError(f"{folder}: predictions hold what is no number ({_first_line(error)}); {AGAIN}") from error
    table = table.assign(path=table["path"].astype(str), case=table["case"].astype(str), **numbers)
    _check_values(folder, table)
    # Written as nine digits, a single-precision number comes back exactly; compared, it must be one again.
    return table.assign(
        probability=table["probability"].astype(np.float32), logit=table["logit"].astype(np.float32)
    ).reset_index(drop=True)


def _check_values(folder: Path, table: pd.DataFrame) -> None:
    probability = table["probability"].to_numpy(dtype=np.float64)
    if not ((probability >= 0) & (probability <= 1)).all() or not np.isfinite(table["logit"]).all():
        raise InputError(f"{folder}: predictions hold a probability outside [0, 1] or an infinite logit; {AGAIN}")
    if not table["label"].isin((0, 1)).all():
        raise InputError(f"{folder}: predictions hold a label that is neither 0 nor 1; {AGAIN}")


def _read_pictures(folder: Path, rows: int) -> Pictures | None:
    path = folder / "pictures.npz"
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            pictures = Pictures(*(arrays[name] for name in ("thumbnail", "mistake_row", "mistake_image")))
    except Exception as error:  # a broken archive raises whatever zip, zlib and NumPy think of
        raise InputError(f"{path}: cannot be read ({_first_line(error)}); {AGAIN}") from error
    fitting = (
        pictures.thumbnail.ndim == 4
        and pictures.mistake_image.ndim == 4
        and len(pictures.thumbnail) == rows
        and len(pictures.mistake_image) == len(pictures.mistake_row)
        and all(0 <= row < rows for row in pictures.mistake_row)
    )
    if not fitting:
        raise InputError(f"{path}: does not belong to the predictions beside it; {AGAIN}")
    return pictures


def _read_configuration(folder: Path) -> str | None:
    """Return the run's `config.yaml`: results on other data lie in a folder below the one that holds it."""
    for place in (folder, folder.resolve().parent):
        path = place / "config.yaml"
        if path.is_file():
            return path.read_text(encoding="utf-8", errors="replace")
    return None


def _check_belonging(run: Run) -> None:
    """Refuse a metrics.json that does not describe the predictions beside it: a page of two runs would mislead."""
    if run.judged.empty:
        raise InputError(f"{run.folder}: predictions hold no patch of the test part; {AGAIN}")
    counts = confusion(run.judged["label"], run.judged["probability"], 0.5)
    if [[counts.tn, counts.fp], [counts.fn, counts.tp]] != run.metrics["confusion_matrix"]:
        raise InputError(
            f"{run.folder}: metrics.json says {run.metrics['confusion_matrix']} at 0.5 and the predictions say "
            f"{[[counts.tn, counts.fp], [counts.fn, counts.tp]]}; {AGAIN}"
        )
    cases = {str(row["case"]) for row in run.metrics["per_case"]}
    if cases != set(run.judged["case"]):
        odd = sorted(cases ^ set(run.judged["case"]))
        raise InputError(f"{run.folder}: metrics.json and the predictions do not share the case {odd[0]}; {AGAIN}")


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__
