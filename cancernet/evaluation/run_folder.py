"""Read and write a run folder: what `fit`, `test` and `predict` leave there, checked when it is read."""

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from cancernet.errors import InputError, one_line
from cancernet.evaluation.calibration import apply_temperature, sigmoid
from cancernet.evaluation.figures import draw_confusion_matrix
from cancernet.evaluation.integrity import check_figures, check_files, refuse_part, write_sealed
from cancernet.evaluation.pictures import Pictures
from cancernet.evaluation.records import read_record
from cancernet.evaluation.results import Completeness, Origin, PredictionsOrigin, TestMetrics
from cancernet.files import replacing

CONFIGURATION = "config.yaml"
SPLIT = "split.csv"
LEFT_OUT = "left_out.csv"
METRICS = "metrics.json"
ORIGIN = "predictions.json"
PREDICTIONS = ("predictions.parquet", "predictions.csv")
PICTURES = "pictures.npz"
CONFUSION_MATRIX = "confusion_matrix.png"
REPORT = "report.html"
MODEL_CARD = "model_card.md"

AGAIN = "run `cancernet test` (or `predict`) again"
SPLIT_AGAIN = "copy the file that `fit` wrote, or remove this one"
UNLABELLED = "the class of its patches is not known, so nothing can be evaluated; predict patches with labels"
COLUMNS = ("path", "case", "x", "y", "part", "label", "logit", "probability")
NUMBERS = ("x", "y", "label", "logit", "probability")


@dataclass(frozen=True)
class Run:
    """A run folder after `test`.

    Attributes:
        folder: Its path.
        metrics: `metrics.json`.
        predictions: One row a patch, numbered from 0; `case` and `path` are strings.
        pictures: Of the same patches; None where the folder holds none.
        configuration: `config.yaml` as text; None where the folder holds none.
    """

    folder: Path
    metrics: TestMetrics
    predictions: pd.DataFrame
    pictures: Pictures | None
    configuration: str | None

    @property
    def tested(self) -> pd.DataFrame:
        """Predictions of the test part."""
        return self.predictions[self.predictions["part"] == "test"]

    @property
    def name(self) -> str:
        """Name on a page: the last two folders of the path."""
        parts = self.folder.resolve().parts
        return "/".join(parts[-2:]) if len(parts) > 2 else self.folder.name


def predictions_table(
    index: pd.DataFrame, part: np.ndarray, rows: np.ndarray, logit: np.ndarray, temperature: float | None = None
) -> pd.DataFrame:
    """Join predictions with what is known of their patches.

    Args:
        index: The store's index table.
        part: (N,) part names of the whole store.
        rows: (M,) store rows that were predicted.
        logit: (M,) float32 logits of IDC.
        temperature: Of the checkpoint, where it was calibrated.

    Returns:
        One row a patch: path, case, x, y, part, label (missing where negative; no such column where all are), logit,
        probability (of IDC, in [0, 1]), probability_calibrated (NaN without a temperature).
    """
    table = index[["path", "case", "x", "y"]].iloc[rows].reset_index(drop=True).astype({"path": str, "case": str})
    calibrated = np.full(len(rows), np.nan) if temperature is None else apply_temperature(logit, temperature)
    label = index["label"].to_numpy()[rows]
    if (label < 0).any():
        label = pd.arrays.IntegerArray(label.astype(np.int8), label < 0)
    return table.assign(
        part=part[rows],
        **({} if len(label) and pd.isna(label).all() else {"label": label}),
        logit=logit.astype(np.float32),
        probability=sigmoid(logit).astype(np.float32),
        probability_calibrated=calibrated.astype(np.float32),
    )


def write_split(folder: Path, split: pd.DataFrame, left_out: pd.DataFrame) -> None:
    """Write `split.csv`, the part of each patch (its format can be given to `--data.split`), and `left_out.csv`."""
    for name, table in ((SPLIT, split), (LEFT_OUT, left_out)):
        with replacing(folder / name) as path:
            table.to_csv(path, index=False)


def write_tested(folder: Path, metrics: TestMetrics, table: pd.DataFrame, pictures: Pictures) -> None:
    """Write the results of a test: predictions (see `predictions_table`), pictures, metrics and confusion matrix."""
    _write_predictions(folder, table)
    # An open file: given a path, NumPy appends its own ending to the name.
    with replacing(folder / PICTURES) as path, path.open("wb") as file:
        arrays = {name: array for name, array in vars(pictures).items() if array is not None}
        np.savez_compressed(file, allow_pickle=False, **arrays)
    title = f"{metrics.patches:,} {metrics.part} patches, threshold {metrics.threshold:g}"
    figure = draw_confusion_matrix(np.array(metrics.confusion_matrix), title, metrics.synthetic)
    with replacing(folder / CONFUSION_MATRIX) as path:
        figure.savefig(path, format="png")
    # Last, as its checksums belong to the others: a test that is interrupted here is found by them.
    write_sealed(folder / METRICS, metrics, (*PREDICTIONS, PICTURES, CONFUSION_MATRIX))


def write_predicted(folder: Path, origin: PredictionsOrigin, table: pd.DataFrame) -> None:
    """Write predictions that are not evaluated, and what they come from."""
    _write_predictions(folder, table)
    write_sealed(folder / ORIGIN, origin, PREDICTIONS)


def _write_predictions(folder: Path, table: pd.DataFrame) -> None:
    parquet, csv = PREDICTIONS
    with replacing(folder / csv) as path:
        table.to_csv(path, index=False, float_format="%.9g")
    with replacing(folder / parquet) as path:
        table.to_parquet(path, index=False)


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
    configuration = _nearest(folder, CONFIGURATION)
    text = None if configuration is None else configuration.read_text(encoding="utf-8", errors="replace")
    run = Run(folder, metrics, predictions, _read_pictures(folder, len(predictions)), text)
    check_figures(folder / METRICS, metrics, run.tested, AGAIN)
    check_files(folder, metrics.sha256, AGAIN)
    return run


def read_metrics(folder: Path) -> TestMetrics:
    """Read `metrics.json` of a run folder.

    Raises:
        InputError: It is missing, broken or of another version.
    """
    path = folder / METRICS
    if not path.is_file():
        raise InputError(f"{folder}: no {METRICS} there; give a run folder that `cancernet test` wrote")
    return read_record(TestMetrics, path, AGAIN)


def read_origin(folder: Path) -> Origin:
    """Read what the predictions of a folder come from, whether `test` or `predict` wrote them.

    Raises:
        InputError: Neither of their files is there, or it is broken.
    """
    if (folder / ORIGIN).is_file():
        return read_record(Origin, folder / ORIGIN, AGAIN)
    if not (folder / METRICS).is_file():
        raise InputError(f"{folder}: neither {METRICS} nor {ORIGIN} there; {AGAIN}")
    return read_metrics(folder).origin


def read_whole(folder: Path) -> tuple[pd.DataFrame, Origin]:
    """Read the predictions of a folder and what they come from, where they are of all patches and as they were written.

    Raises:
        InputError: They are missing, broken, changed or of a part.
    """
    predictions, origin = read_predictions(folder), read_origin(folder)
    name = ORIGIN if (folder / ORIGIN).is_file() else METRICS
    completeness = read_record(Completeness, folder / name, AGAIN)
    refuse_part(folder, completeness, AGAIN)
    if name == METRICS:
        tested = predictions[predictions["part"] == "test"]
        check_figures(folder / METRICS, read_metrics(folder), tested, AGAIN)
    check_files(folder, completeness.sha256, AGAIN)
    return predictions, origin


def read_split(folder: Path) -> pd.DataFrame | None:
    """Read `split.csv` of the run that a folder belongs to, all columns as text; None where there is none.

    Raises:
        InputError: It is broken.
    """
    path = _nearest(folder, SPLIT)
    if path is None:
        return None
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); {SPLIT_AGAIN}") from error
    if not {"case", "part"} <= {*table}:
        raise InputError(f"{path}: columns case and part are needed, found {', '.join(map(str, table))}; {SPLIT_AGAIN}")
    return table


def read_predictions(folder: Path) -> pd.DataFrame:
    """Read the predictions of a folder: one row a patch, numbered from 0; `case` and `path` are strings.

    Raises:
        InputError: They are missing or broken.
    """
    parquet, csv = (folder / name for name in PREDICTIONS)
    try:
        if parquet.is_file():
            table = pd.read_parquet(parquet)
        elif csv.is_file():
            # Names that look like numbers, or like "NA", stay the names they are.
            table = pd.read_csv(csv, dtype={"path": str, "case": str}, keep_default_na=False)
        else:
            raise InputError(f"{folder}: neither {' nor '.join(PREDICTIONS)} there; {AGAIN}")
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: predictions cannot be read ({one_line(error)}); {AGAIN}") from error
    if "part" not in table:  # version 0.1 called it split
        table = table.rename(columns={"split": "part"})
    missing = [name for name in COLUMNS if name not in table]
    if missing == ["label"]:
        raise InputError(f"{folder}: {UNLABELLED}")
    if missing:
        raise InputError(f"{folder}: predictions lack the column {', '.join(missing)}; {AGAIN}")
    try:
        numbers = {name: pd.to_numeric(table[name]) for name in NUMBERS}
    except (ValueError, TypeError) as error:
        raise InputError(f"{folder}: predictions hold what is no number ({one_line(error)}); {AGAIN}") from error
    table = table.assign(path=table["path"].astype(str), case=table["case"].astype(str), **numbers)
    probability = table["probability"].to_numpy(dtype=np.float64)
    if not ((probability >= 0) & (probability <= 1)).all() or not np.isfinite(table["logit"]).all():
        raise InputError(f"{folder}: predictions hold a probability outside [0, 1] or an infinite logit; {AGAIN}")
    if table["label"].isna().any():
        raise InputError(f"{folder}: {UNLABELLED}")
    if not table["label"].isin((0, 1)).all():
        raise InputError(f"{folder}: predictions hold a label that is neither 0 nor 1; {AGAIN}")
    # Written as nine digits, a single-precision number comes back exactly; compared, it must be one again.
    single = {name: table[name].astype(np.float32) for name in ("logit", "probability")}
    return table.assign(**single).reset_index(drop=True)


def _read_pictures(folder: Path, rows: int) -> Pictures | None:
    path = folder / PICTURES
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            pictures = Pictures(
                **{field.name: arrays[field.name] for field in fields(Pictures) if field.name in arrays}
            )
    except Exception as error:  # a broken archive raises errors of zip, zlib and NumPy
        raise InputError(f"{path}: cannot be read ({one_line(error)}); {AGAIN}") from error
    fitting = (
        pictures.thumbnail.ndim == 4
        and pictures.mistake_image.ndim == 4
        and len(pictures.thumbnail) == rows
        and len(pictures.mistake_image) == len(pictures.mistake_row)
        and (pictures.mistake_map is None or pictures.mistake_map.shape[:1] == pictures.mistake_row.shape)
        and all(0 <= row < rows for row in pictures.mistake_row)
    )
    if not fitting:
        raise InputError(f"{path}: does not belong to the predictions next to it; {AGAIN}")
    return pictures


def _nearest(folder: Path, name: str) -> Path | None:
    """Return a file of the run: results on other data lie in a folder below the one that holds it."""
    places = (folder / name, folder.resolve().parent / name)
    return next((path for path in places if path.is_file()), None)
