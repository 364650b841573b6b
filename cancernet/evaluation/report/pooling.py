"""What a page is about: one run, or the folds of a cross-validation pooled, each patch tested once.

A fold's scores come from its own model, so pooled ranks (AUROC, average precision) also compare scores of different
models. Calls, temperature and operating points are those of each patch's own fold.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cancernet.errors import InputError
from cancernet.evaluation.analysis import Scores, rates_at, summarise
from cancernet.evaluation.calibration import calibration_summary
from cancernet.evaluation.integrity import refuse_part
from cancernet.evaluation.pictures import Pictures
from cancernet.evaluation.results import Evaluation
from cancernet.evaluation.run_folder import AGAIN, Run
from cancernet.evaluation.values import Bootstrap, BothRates, CalibrationResult, FourRates, TestedPoint

KIND = {"data", "fingerprint", "synthetic", "split", "seed", "folds", "leaks"}
"""Entries of `metrics.json` that the folds of one cross-validation share."""


@dataclass(frozen=True)
class Subject:
    """What a page is about.

    Attributes:
        title: What its heading says.
        metrics: Of the run, or of the pooled runs (then without baselines, and with None for thresholds and
            temperatures that are the folds' own).
        predictions: One row a patch, numbered from 0.
        pictures: Pictures of the same rows; None where any run has none.
        own: The validation threshold each case is called by; None where none was chosen.
        runs: Where it comes from; more than one where pooled.
    """

    title: str
    metrics: Evaluation
    predictions: pd.DataFrame
    pictures: Pictures | None
    own: dict[str, float] | None
    runs: tuple[Run, ...]


def subject_of(runs: Sequence[Run]) -> Subject:
    """Take one run as it is, or pool several.

    Raises:
        InputError: The runs are not folds of one cross-validation, or share a patch or a case.
    """
    own = _own_thresholds(runs)
    if len(runs) == 1:
        run = runs[0]
        return Subject(run.name, run.metrics, run.predictions, run.pictures, own, (run,))
    _check_poolable(runs)
    runs = sorted(runs, key=lambda run: -1 if run.metrics.fold is None else run.metrics.fold)
    predictions = pd.concat([run.predictions for run in runs], ignore_index=True)
    source = np.repeat(np.arange(len(runs)), [len(run.predictions) for run in runs])
    # What one fold left outside, another one tested; pictures of rows that count nowhere are not shown twice.
    keep = (predictions["part"] == "test").to_numpy()
    pictures = _join_pictures(runs, keep)
    predictions, source = predictions[keep].reset_index(drop=True), source[keep]
    folds = ", ".join(str(run.metrics.fold) for run in runs)
    title = f"{len(runs)} of {runs[0].metrics.folds} folds pooled ({folds})"
    return Subject(title, _evaluate(runs, predictions, source, own), predictions, pictures, own, tuple(runs))


def _own_thresholds(runs: Sequence[Run]) -> dict[str, float] | None:
    """The validation threshold of each case's run; None where a run has none."""
    own: dict[str, float] = {}
    for run in runs:
        chosen = run.metrics.validation_threshold
        if chosen is None:
            return None
        own |= {row.case: chosen for row in run.metrics.per_case}
    return own


def _check_poolable(runs: Sequence[Run]) -> None:
    first = runs[0]
    kind = first.metrics.model_dump(include=KIND)
    for run in runs[1:]:
        for key, value in run.metrics.model_dump(include=KIND).items():
            if value != kind[key]:
                raise InputError(
                    f"{run.folder}: {key} is {_short(value)}, but {_short(kind[key])} in {first.folder}; pool the "
                    "folds of one cross-validation"
                )
    if first.metrics.folds is None:
        raise InputError(
            f"{first.folder}: not a fold of a cross-validation (trained without --data.folds); "
            "use `cancernet compare` for runs on the same patches"
        )
    seen: dict[str, int] = {}
    for number, run in enumerate(runs):
        refuse_part(run.folder, run.metrics, AGAIN)
        for column, noun in (("path", "patch"), ("case", "case")):
            for name in run.tested[column].unique():
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
    maps = [part.mistake_map for part in known if part.mistake_map is not None]
    joined = np.concatenate(maps) if len(maps) == len(known) and len({map.shape[1:] for map in maps}) == 1 else None
    number = np.cumsum(keep) - 1
    counted = keep[rows]
    thumbnails = np.concatenate([part.thumbnail for part in known])[keep]
    return Pictures(thumbnails, number[rows[counted]], images[counted], None if joined is None else joined[counted])


def _evaluate(
    runs: Sequence[Run], table: pd.DataFrame, source: np.ndarray, own: Mapping[str, float] | None
) -> Evaluation:
    """Evaluate the pooled patches; `source` (N,) is the number of each patch's run."""
    metrics = [run.metrics for run in runs]
    scores = Scores.of(table)
    thresholds = None if own is None else np.array([own[case] for case in table["case"]])
    rows = sorted((row for one in metrics for row in one.per_case), key=lambda row: row.case)
    analysis = summarise(
        scores,
        thresholds,
        rows,
        Bootstrap.model_validate(metrics[0].intervals),
        operating_points=_pool_points(runs, scores, source),
        calibration=_pool_calibration(runs, scores, source),
        baselines=None,
    )
    return Evaluation(
        **dict(analysis),
        **metrics[0].model_dump(include=KIND),
        fold=None,
        checkpoint=", ".join(sorted({one.checkpoint for one in metrics})),
        version=", ".join(sorted({one.version for one in metrics})),
        exposure_known=all(one.exposure_known for one in metrics),
    )


def _pool_points(runs: Sequence[Run], scores: Scores, source: np.ndarray) -> list[TestedPoint] | None:
    """Operating points: each fold's threshold calls its own patches; what validation showed is the mean over folds."""
    lists = [run.metrics.operating_points for run in runs]
    known = [points for points in lists if points is not None]
    if len(known) < len(lists):
        return None
    pooled = []
    for same in zip(*known, strict=True):
        thresholds = np.array([point.threshold for point in same], dtype=np.float64)[source]
        pooled.append(
            TestedPoint(
                name=same[0].name,
                fixed=same[0].fixed,
                target=same[0].target,
                threshold=None,
                validation=BothRates(
                    sensitivity=_mean(point.validation.sensitivity for point in same),
                    specificity=_mean(point.validation.specificity for point in same),
                ),
                test=FourRates.model_validate(rates_at(scores, thresholds)),
            )
        )
    return pooled


def _mean(values: Iterable[float | None]) -> float:
    """NaN where a value is None."""
    return float(np.mean(np.array(list(values), dtype=np.float64)))


def _pool_calibration(runs: Sequence[Run], scores: Scores, source: np.ndarray) -> CalibrationResult | None:
    fitted = [run.metrics.calibration for run in runs]
    known = [one for one in fitted if one is not None]
    if len(known) < len(fitted):
        return None
    temperature = np.array([one.temperature for one in known], dtype=np.float64)[source]
    return CalibrationResult(
        temperature=None,
        bounded=any(one.bounded for one in known),
        before=calibration_summary(scores.label, scores.logit),
        after=calibration_summary(scores.label, scores.logit / temperature),
    )
