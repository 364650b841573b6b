"""The page itself: what each part shows, gathered for the template."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cancernet.evaluation.grid import lay_out
from cancernet.evaluation.metrics import LOWER_IS_BETTER, THRESHOLD_FREE
from cancernet.evaluation.pictures import MISTAKES, Pictures
from cancernet.evaluation.report import charts, maps
from cancernet.evaluation.report.context import context_sections
from cancernet.evaluation.report.formatting import UNDEFINED, figure, fill
from cancernet.evaluation.report.narrative import describe, evaluated_at
from cancernet.evaluation.report.pooling import Subject
from cancernet.evaluation.results import Evaluation
from cancernet.evaluation.values import CaseMetrics

FINE_PATCHES = 70_000
"""Patches up to which slides keep 8 pixels a patch; beyond, 4: the whole archive, pooled, stays below 5 MB."""
STEPS = 200
"""Stops of the slider from even values, and as many from quantiles of the scores: either alone is coarse somewhere."""
UNMOVED = {"auroc", "brier", "patches", "prevalence"}
"""Columns of the per-case table that no threshold moves."""


def render(subject: Subject) -> str:
    """Return the page as HTML that needs no other file."""
    metrics, table = subject.metrics, subject.predictions
    tested = table[table["part"] == "test"]
    label, probability = tested["label"].to_numpy(), tested["probability"].to_numpy()
    histogram = charts.draw_histogram(label, probability)
    curves = charts.draw_curves(label, probability, metrics.prevalence)
    plots = {name: drawing.plot for name, drawing in curves.items()} | {"histogram": histogram["frame"].plot()}
    return fill(
        "report.html.j2",
        subject=subject,
        m=metrics,
        data=payload(tested, metrics, subject.own, plots),
        at=evaluated_at(metrics),
        free=THRESHOLD_FREE,
        lower=LOWER_IS_BETTER,
        ranked=ranked_cases(metrics),
        statements=describe(metrics),
        curves=curves,
        histogram=histogram,
        reliability=charts.draw_calibration(metrics.calibration) if metrics.calibration else None,
        shares=charts.draw_idc_shares(metrics.per_case, metrics.idc_share) if metrics.idc_share else None,
        strips=charts.STRIPS,
        case_maps=case_maps(subject, "test"),
        outside_maps=case_maps(subject, "outside"),
        contexts=context_sections(subject),
        mistakes=mistakes(subject),
        most_mistakes=MISTAKES,
        calls=maps.CALLS,
    )


def ranked_cases(metrics: Evaluation) -> list[tuple[int, CaseMetrics]]:
    """Number the cases as `metrics.json` lists them, worst first; undefined balanced accuracy stands last."""
    return sorted(
        enumerate(metrics.per_case),
        key=lambda entry: (entry[1].balanced_accuracy is None, entry[1].balanced_accuracy or 0.0, entry[0]),
    )


def payload(
    tested: pd.DataFrame, metrics: Evaluation, own: Mapping[str, float] | None, plots: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    """Everything the script is given, as plain numbers, strings and lists.

    Args:
        tested: Predictions of the test part.
        metrics: `metrics.json`, or what stands for it where runs are pooled.
        own: The validation threshold that applies to each case; None where none was chosen.
        plots: Where [0, 1] lies in each chart with something that moves: left, top, width, height.
    """
    probability = tested["probability"].to_numpy(dtype=np.float32)
    label = tested["label"].to_numpy()
    # Cases in the order of the per-case table; within a case first the benign scores, then those of IDC, rising.
    number = {row.case: at for at, row in enumerate(metrics.per_case)}
    of_case = tested["case"].map(number).to_numpy(dtype=np.int64)
    order = np.lexsort((probability, label, of_case))
    counts = np.bincount(2 * of_case + label, minlength=2 * len(number)).reshape(-1, 2)
    return {
        "scores": base64.b64encode(probability[order].astype("<f4").tobytes()).decode("ascii"),
        "cases": [
            [*classes, None if own is None else own[case]]
            for case, classes in zip(number, counts.tolist(), strict=True)
        ],
        "fixed": [row.model_dump(include=UNMOVED) for row in metrics.per_case],
        "stops": stops(probability, stored_thresholds(metrics)),
        "start": start(metrics),
        "temperature": None if metrics.calibration is None else metrics.calibration.temperature,
        "undefined": UNDEFINED,
        "plots": plots,
    }


def start(metrics: Evaluation) -> float | str:
    """Threshold the page opens with; `own` where each case has the threshold of its own fold."""
    if metrics.at_validation_threshold is None:
        return 0.5
    return "own" if metrics.validation_threshold is None else metrics.validation_threshold


def stored_thresholds(metrics: Evaluation) -> list[float]:
    """Thresholds that `metrics.json` names: 0.5, validation's, the operating points'."""
    values = [0.5, metrics.validation_threshold, *(point.threshold for point in metrics.operating_points or [])]
    return sorted({value for value in values if value is not None})


def stops(probability: np.ndarray, stored: Sequence[float]) -> list[float]:
    """Thresholds the slider stops at, rising from 0 to 1; the stored ones are among them, exactly."""
    even = np.arange(STEPS + 1) / STEPS
    quantiles = np.quantile(probability, even, method="nearest").astype(np.float64)
    return np.unique(np.concatenate([even, quantiles, np.asarray(stored, dtype=np.float64)])).tolist()


def case_maps(subject: Subject, part: str) -> list[dict[str, Any]]:
    """Maps of each case of a part: the tested ones in the order of the per-case table, others by size."""
    table = subject.predictions[subject.predictions["part"] == part]
    rows = {row.case: (number, row) for number, row in ranked_cases(subject.metrics)}
    groups = {str(name): group for name, group in table.groupby("case", sort=False)}
    names = (
        [name for name in rows if name in groups]
        if part == "test"
        else sorted(groups, key=lambda name: (-len(groups[name]), name))
    )
    fine = (
        len(subject.predictions) <= FINE_PATCHES or subject.pictures is None or subject.pictures.thumbnail.shape[1] % 2
    )
    reduction = 1 if fine else 2
    shown = []
    for name in names:
        entry = _case_map(groups[name], subject, _threshold_of(subject, name), reduction)
        number, row = rows[name] if part == "test" else (None, None)
        shown.append({"case": name, "number": number, "row": row, **entry})
    return shown


def _threshold_of(subject: Subject, case: str) -> float:
    """The threshold that a case is called at; 0.5 where folds are pooled and none of them tested the case."""
    threshold = (subject.own or {}).get(case, evaluated_at(subject.metrics)[0].threshold)
    return 0.5 if threshold is None else threshold


def _case_map(group: pd.DataFrame, subject: Subject, threshold: float, reduction: int) -> dict[str, Any]:
    label, probability = group["label"].to_numpy(), group["probability"].to_numpy()
    grid = lay_out(group["x"].to_numpy(), group["y"].to_numpy())
    facts: dict[str, Any] = {"patches": len(group), "idc": int(label.sum()), "threshold": threshold, "grid": grid}
    if grid is None:
        known = bool(((group["x"] >= 0) & (group["y"] >= 0)).any())
        return facts | {"reason": "too far apart to be those of a slide" if known else "unknown"}
    thumbnail = None if subject.pictures is None else subject.pictures.thumbnail[group.index.to_numpy()]
    return facts | {
        "unplaced": len(group) - len(grid.patch),
        "coverage": len(grid.patch) / (grid.columns * grid.rows),
        "label_map": maps.label_map(grid, label),
        "probability_map": maps.probability_map(grid, probability),
        "call_map": maps.call_map(grid, label, probability >= threshold),
        "slide": None if thumbnail is None else maps.stitch_slide(grid, thumbnail, reduction),
    }


def mistakes(subject: Subject) -> list[dict[str, Any]] | None:
    """The most confident false positives and false negatives, worst first; None without pictures."""
    pictures = subject.pictures
    if pictures is None:
        return None
    rows = subject.predictions.iloc[pictures.mistake_row]
    label, probability = rows["label"].to_numpy(), rows["probability"].to_numpy(dtype=np.float64)
    groups = []
    for value, title in ((0, "Benign, yet scored highest"), (1, "IDC, yet scored lowest")):
        of_class = np.flatnonzero(label == value)
        order = of_class[np.argsort(probability[of_class] * (2 * value - 1), kind="stable")][:MISTAKES]
        patches = [_mistake(rows.iloc[at], at, subject, pictures) for at in order]
        groups.append({"key": ("false-positive", "false-negative")[value], "title": title, "patches": patches})
    return groups


def _mistake(row: pd.Series, at: int, subject: Subject, pictures: Pictures) -> dict[str, Any]:
    called = row["probability"] >= _threshold_of(subject, row["case"])
    activation = None if pictures.mistake_map is None else maps.activation_picture(pictures.mistake_map[at])
    return {
        "source": maps.patch_picture(pictures.mistake_image[at]),
        "activation": activation,
        "case": row["case"],
        "path": row["path"],
        "position": f"x {row['x']}, y {row['y']}" if row["x"] >= 0 else "position unknown",
        "probability": figure(float(row["probability"]), 4),
        "wrong": bool(called) != bool(row["label"]),
    }
