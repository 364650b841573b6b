"""Rows of the page's tables, as text."""

from collections.abc import Sequence
from typing import Any

from cancernet.evaluation.metrics import LOWER_IS_BETTER, THRESHOLD_FREE
from cancernet.evaluation.report.formatting import (
    NAMES,
    UNDEFINED,
    figure,
    interval,
    percent,
    signed,
    threshold,
)
from cancernet.evaluation.report.narrative import evaluated_at
from cancernet.evaluation.results import ContextResult, Evaluation
from cancernet.evaluation.values import CalibrationResult, ColourHistogram, Interval, TestedPoint

HEADLINE = ("auroc", "average_precision", "balanced_accuracy", "sensitivity", "specificity", "f1")
MOVING = ("balanced_accuracy", "sensitivity", "specificity", "precision", "npv", "f1", "mcc", "accuracy")
"""Metrics next to the confusion matrix, which the slider moves."""
CASE_MOVING = ("balanced_accuracy", "sensitivity", "specificity", "f1")


def headline(metrics: Evaluation) -> list[dict[str, Any]]:
    """Cards on top of the page: metric, value and interval at the threshold that counts."""
    at, bounds, _ = evaluated_at(metrics)
    cards = []
    for name in HEADLINE:
        value = metrics[name] if name in THRESHOLD_FREE else at[name]
        cards.append({"name": NAMES[name], "value": figure(value), "interval": interval(bounds[name])})
    return cards


def metric_rows(metrics: Evaluation) -> list[dict[str, Any]]:
    """The table of all metrics: model at both thresholds, mean over cases, and what has to be beaten."""
    chosen, intervals = metrics["at_validation_threshold"], metrics["intervals"]
    baselines = metrics["baselines"]
    colour = None if baselines is None else baselines["colour_histogram"]
    rows = []
    for name, title in NAMES.items():
        free = name in THRESHOLD_FREE
        mean = intervals["case_mean"][name]
        rows.append(
            {
                "key": name,
                "name": title + (" (lower is better)" if name in LOWER_IS_BETTER else ""),
                "fixed": _cell(metrics[name], intervals["at_threshold"][name]),
                "chosen": None
                if chosen is None or free
                else _cell(chosen[name], intervals["at_validation_threshold"][name]),
                "case_mean": _cell(None if mean is None else mean["estimate"], mean),
                "colour": _colour_cell(colour, name),
                "difference": _difference_cell(colour, name),
                "prevalence": figure(None if baselines is None else baselines["prevalence"][name]),
            }
        )
    return rows


def _cell(value: float | None, bounds: Interval | None) -> dict[str, str]:
    return {"value": figure(value), "interval": interval(bounds)}


def _colour_cell(colour: ColourHistogram | None, name: str) -> dict[str, str] | None:
    """The colour baseline at its own validation threshold where it has one, else at 0.5."""
    if colour is None:
        return None
    at, bounds = colour["at_validation_threshold"], colour["intervals"]["at_validation_threshold"]
    if at is None or name in THRESHOLD_FREE:
        at, bounds = colour, colour["intervals"]["at_threshold"]
    return _cell(at[name], bounds[name])


def _difference_cell(colour: ColourHistogram | None, name: str) -> dict[str, str] | None:
    if colour is None:
        return None
    difference = colour["difference"][name]
    return {"value": signed(difference["estimate"]), "interval": interval(difference)}


def matrix_of(metrics: Evaluation) -> dict[str, int]:
    """Counts at the threshold that counts."""
    (tn, fp), (fn, tp) = evaluated_at(metrics)[0]["confusion_matrix"]
    return {"tn": tn, "fp": fp, "fn": fn, "tp": tp}


def case_rows(metrics: Evaluation) -> list[dict[str, Any]]:
    """Rows of the per-case table, worst first; a case whose balanced accuracy is undefined stands last."""
    worst = set(metrics["worst_tenth"])
    rows = []
    for number, row in enumerate(metrics["per_case"]):
        rows.append(
            {
                "number": number,
                "case": str(row["case"]),
                "worst": row["case"] in worst,
                "patches": f"{row['patches']:,}",
                "prevalence": figure(row["prevalence"]),
                **{name: figure(row[name]) for name in (*CASE_MOVING, "auroc", "brier")},
                **{name: f"{row[name]:,}" for name in ("tn", "fp", "fn", "tp")},
                "rank": (row["balanced_accuracy"] is None, row["balanced_accuracy"] or 0.0, number),
            }
        )
    return sorted(rows, key=lambda row: row["rank"])


def summary_rows(metrics: Evaluation) -> list[dict[str, str]]:
    """The spread over cases, a row a metric."""
    columns = ("mean", "sd", "lowest", "quartile_1", "median", "quartile_3", "highest")
    rows = []
    for name, title in NAMES.items():
        spread = metrics["case_summary"][name]
        rows.append({"name": title, "cases": str(spread["cases"]), **{key: figure(spread[key]) for key in columns}})
    return rows


def point_rows(points: Sequence[TestedPoint] | None) -> list[dict[str, Any]]:
    """Operating points: what was held on validation, and what the test part then shows."""
    rows = []
    for point in points or []:
        rows.append(
            {
                "held": f"{point['fixed']} {percent(point['target'])}",
                "threshold": UNDEFINED if point["threshold"] is None else f"{point['threshold']:.4f}",
                "value": point["threshold"],
                "validation": {name: figure(point["validation"][name]) for name in ("sensitivity", "specificity")},
                "test": {name: figure(value) for name, value in point["test"]},
            }
        )
    return rows


def calibration_rows(calibration: CalibrationResult) -> list[dict[str, str]]:
    """Calibration before and after the temperature."""
    ideal = {"slope": "1", "intercept": "0", "intercept_in_the_large": "0", "expected_calibration_error": "0"}
    names = {
        "brier": "Brier score",
        "log_loss": "log loss (nats)",
        "slope": "calibration slope",
        "intercept": "calibration intercept",
        "intercept_in_the_large": "intercept in the large",
        "expected_calibration_error": "expected calibration error",
    }
    return [
        {
            "name": title,
            "ideal": ideal.get(key, "low"),
            "before": figure(calibration["before"][key]),
            "after": figure(calibration["after"][key]),
        }
        for key, title in names.items()
    ]


def context_rows(result: ContextResult) -> list[dict[str, Any]]:
    """Rows of `context.json`: patch-wise, with context, and the difference of the two, each with its interval."""
    rows = []
    for name, difference in result["difference"]:
        cells = [_cell(result[side][name]["estimate"], result[side][name]) for side in ("patch_wise", "context")]
        cells.append({"value": signed(difference["estimate"]), "interval": interval(difference)})
        rows.append({"name": NAMES[name], "cells": cells})
    chosen = threshold(result["threshold"])
    rows.append({"name": "threshold", "cells": [{"value": value, "interval": ""} for value in (chosen, chosen, "")]})
    return rows
