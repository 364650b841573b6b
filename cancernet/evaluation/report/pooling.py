"""What a page is about: one run, or the folds of a cross-validation pooled, each patch judged once.

A fold's scores come from its own model, so pooled ranks (AUROC, average precision) also compare scores of different
models. Calls, temperature and operating points are those of each patch's own fold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from cancernet.errors import InputError
from cancernet.evaluation.bootstrap import bootstrap, bootstrap_case_mean
from cancernet.evaluation.calibration import calibration_summary, sigmoid
from cancernet.evaluation.metrics import METRICS, case_summary, confusion, rates, worst_tenth
from cancernet.evaluation.run_folder import Pictures, Run

KIND = ("data", "fingerprint", "synthetic", "split", "seed", "folds", "leaks")
"""Entries of `metrics.json` that the folds of one cross-validation share."""
LOSSES = ("brier", "log_loss")
CALLS = tuple(name for name in METRICS if name not in ("auroc", "average_precision", *LOSSES))
JUDGED = ("sensitivity", "specificity", "precision", "npv")


@dataclass(frozen=True)
class Subject:
    """What a page is about.

    Attributes:
        title: What its heading says.
        metrics: `metrics.json` of the run, or of the pooled runs in the same form (then without baselines, and with
            null for thresholds and temperatures that are the folds' own).
        predictions: One row a patch, numbered from 0.
        pictures: Pictures of the same rows; None where any run has none.
        own: The validation threshold each case is judged by; None where none was chosen.
        runs: Where it comes from; more than one where pooled.
    """

    title: str
    metrics: dict[str, Any]
    predictions: pd.DataFrame
    pictures: Pictures | None
    own: dict[str, float] | None
    runs: tuple[Run, ...]


def subject_of(runs: Sequence[Run]) -> Subject:
    """Take one run as it is, or pool several.

    Raises:
        InputError: The runs are not folds of one cross-validation, or share a patch or a case.
    """
    if len(runs) > 1:
        return pool(runs)
    run = runs[0]
    return Subject(run.name, run.metrics, run.predictions, run.pictures, _own_thresholds(runs), (run,))


def pool(runs: Sequence[Run]) -> Subject:
    """Pool the folds of a cross-validation (see `subject_of`)."""
    _check_poolable(runs)
    runs = sorted(runs, key=lambda run: run.metrics["fold"])
    predictions = pd.concat([run.predictions for run in runs], ignore_index=True)
    source = np.repeat(np.arange(len(runs)), [len(run.predictions) for run in runs])
    # What one fold left outside another one judged; pictures of rows that count nowhere are not shown twice.
    keep = (predictions["split"] == "test").to_numpy()
    pictures = _join_pictures(runs, keep)
    predictions, source = predictions[keep].reset_index(drop=True), source[keep]
    own = _own_thresholds(runs)
    folds = ", ".join(str(run.metrics["fold"]) for run in runs)
    title = f"{len(runs)} of {runs[0].metrics['folds']} folds pooled ({folds})"
    return Subject(title, _judge(runs, predictions, source, own), predictions, pictures, own, tuple(runs))


def _own_thresholds(runs: Sequence[Run]) -> dict[str, float] | None:
    """The validation threshold of each case's run; None where a run has none."""
    own: dict[str, float] = {}
    for run in runs:
        chosen = run.metrics["at_validation_threshold"]
        if chosen is None:
            return None
        own |= {str(row["case"]): chosen["threshold"] for row in run.metrics["per_case"]}
    return own


def _check_poolable(runs: Sequence[Run]) -> None:
    first = runs[0]
    for run in runs[1:]:
        for key in KIND:
            if run.metrics[key] != first.metrics[key]:
                raise InputError(
                    f"{run.folder}: {key} is {_short(run.metrics[key])}, but {_short(first.metrics[key])} in "
                    f"{first.folder}; pool the folds of one cross-validation"
                )
    if first.metrics["folds"] is None:
        raise InputError(
            f"{first.folder}: not a fold of a cross-validation (trained without --data.folds); "
            "use `cancernet compare` for runs on the same patches"
        )
    seen: dict[str, int] = {}
    for number, run in enumerate(runs):
        for column, noun in (("path", "patch"), ("case", "case")):
            for name in run.judged[column].unique():
                other = seen.setdefault(f"{column} {name}", number)
                if other != number:
                    raise InputError(
                        f"{run.folder}: its test part holds the {noun} {name}, as that of {runs[other].folder} does; "
                        "give each fold once"
                    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 24 else f"{text[:20]}..."


def _join_pictures(runs: Sequence[Run], keep: np.ndarray) -> Pictures | None:
    parts = [run.pictures for run in runs]
    if any(part is None or part.thumbnail.shape[1:] != parts[0].thumbnail.shape[1:] for part in parts):  # type: ignore[union-attr]
        return None
    known = [part for part in parts if part is not None]
    start = np.concatenate([[0], np.cumsum([len(run.predictions) for run in runs])[:-1]])
    rows = np.concatenate([part.mistake_row + first for part, first in zip(known, start, strict=True)])
    images = np.concatenate([part.mistake_image for part in known])
    number = np.cumsum(keep) - 1
    counted = keep[rows]
    thumbnails = np.concatenate([part.thumbnail for part in known])[keep]
    return Pictures(thumbnails, number[rows[counted]], images[counted])


def _judge(
    runs: Sequence[Run], table: pd.DataFrame, source: np.ndarray, own: Mapping[str, float] | None
) -> dict[str, Any]:
    """Build the entries of `metrics.json` for the pooled patches."""
    label, case = table["label"].to_numpy(), table["case"].to_numpy()
    rows = sorted((row for run in runs for row in run.metrics["per_case"]), key=lambda row: str(row["case"]))
    settings = runs[0].metrics["intervals"]
    drawn = {"draws": settings["draws"], "seed": settings["seed"], "level": settings["level"]}
    probability = table["probability"].to_numpy(dtype=np.float64)
    exact = sigmoid(table["logit"].to_numpy())
    fixed = bootstrap(
        label, probability, case, metrics=[name for name in METRICS if name not in LOSSES], **drawn
    ) | bootstrap(label, exact, case, metrics=LOSSES, **drawn)
    at_threshold = {name: _plain(fixed[name]) for name in METRICS}
    called = None if own is None else probability >= table["case"].map(own).to_numpy(dtype=np.float64)
    at_chosen = None
    if called is not None:
        # Calls are all that counts here, whatever threshold made them.
        calls = bootstrap(label, called.astype(np.float64), case, metrics=CALLS, **drawn)
        at_chosen = at_threshold | {name: _plain(value) for name, value in calls.items()}
    columns = {name: [np.nan if row[name] is None else row[name] for row in rows] for name in METRICS}
    means = {name: _plain(bootstrap_case_mean(values, **drawn)) for name, values in columns.items()}
    return {
        **{name: value["estimate"] for name, value in at_threshold.items()},
        **{key: runs[0].metrics[key] for key in KIND},
        **_counts(label, probability >= 0.5),
        "threshold": 0.5,
        "prevalence": float(label.mean()),
        "patches": len(label),
        "cases": len(rows),
        "part": "test",
        "fold": None,
        "version": ", ".join(sorted({str(run.metrics["version"]) for run in runs})),
        "at_validation_threshold": None if called is None else {"threshold": None, **_counts(label, called)},
        "operating_points": _pool_points(runs, label, probability, source),
        "calibration": _pool_calibration(runs, table, source),
        "intervals": settings
        | {"at_threshold": at_threshold, "at_validation_threshold": at_chosen, "case_mean": means},
        "per_case": rows,
        "case_summary": case_summary(rows),
        "worst_tenth": [row["case"] for row in worst_tenth(rows)],
        "baselines": None,
    }


def _plain(value: Any) -> dict[str, Any]:
    return {name: None if number != number else number for name, number in asdict(value).items()}


def _counts(label: np.ndarray, called: np.ndarray) -> dict[str, Any]:
    """Confusion matrix of calls (N,) of bool, and its rates."""
    counts = confusion(label, called.astype(np.float64))
    values = {name: None if value != value else value for name, value in rates(counts).items()}
    matrix = [[counts.tn, counts.fp], [counts.fn, counts.tp]]
    return {"confusion_matrix": matrix, **{name: values[name] for name in CALLS}}


def _pool_points(
    runs: Sequence[Run], label: np.ndarray, probability: np.ndarray, source: np.ndarray
) -> list[dict[str, Any]] | None:
    """Operating points: each fold's threshold calls its own patches; what validation showed is the mean over folds."""
    lists = [run.metrics["operating_points"] for run in runs]
    if any(points is None for points in lists):
        return None
    pooled = []
    for same in zip(*lists, strict=True):
        called = probability >= np.array([point["threshold"] for point in same])[source]
        values = _counts(label, called)
        shown = {name: [point["validation"][name] for point in same] for name in JUDGED[:2]}
        pooled.append(
            {name: same[0][name] for name in ("name", "fixed", "target")}
            | {
                "threshold": None,
                "validation": {name: float(np.mean(v)) if None not in v else None for name, v in shown.items()},
                "test": {name: values[name] for name in JUDGED},
            }
        )
    return pooled


def _pool_calibration(runs: Sequence[Run], table: pd.DataFrame, source: np.ndarray) -> dict[str, Any] | None:
    fitted = [run.metrics["calibration"] for run in runs]
    if any(value is None for value in fitted):
        return None
    label, logit = table["label"].to_numpy(), table["logit"].to_numpy(dtype=np.float64)
    temperature = np.array([value["temperature"] for value in fitted])[source]
    summaries: tuple[Callable[[], dict[str, Any]], ...] = (
        lambda: calibration_summary(label, logit),
        lambda: calibration_summary(label, logit / temperature),
    )
    before, after = ({k: None if v != v else v for k, v in make().items()} for make in summaries)
    return {
        "temperature": None,
        "bounded": any(value["bounded"] for value in fitted),
        "before": before,
        "after": after,
    }
