"""Draw run folders as a test of a model leaves them, with blobs of IDC on a grid and scores with noise."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cancernet.evaluation.analysis import RATES, Scores, analyse, fit_calibration
from cancernet.evaluation.baselines import BaselineScores
from cancernet.evaluation.calibration import sigmoid
from cancernet.evaluation.metrics import auroc, average_precision, confusion, rates
from cancernet.evaluation.results import write_metrics, write_origin, write_predictions

MISTAKES = 24


def draw_cases(names: Sequence[str], side: int, split: str, random: np.random.Generator) -> pd.DataFrame:
    """Patches of cases on a grid of `side` x `side` cells whose corners hold no tissue, with logits."""
    tables = []
    for number, name in enumerate(names):
        column, row = (axis.ravel() for axis in np.meshgrid(np.arange(side), np.arange(side)))
        middle = (side - 1) / 2
        tissue = (column - middle) ** 2 + (row - middle) ** 2 <= (0.55 * side) ** 2
        column, row = column[tissue], row[tissue]
        centre = random.uniform(0.25 * side, 0.75 * side, 2)
        label = ((column - centre[0]) ** 2 + (row - centre[1]) ** 2 <= (0.28 * side) ** 2).astype(np.int64)
        if number == 1:
            label[:] = 0  # a case of one class
        logit = 2.2 * (2 * label - 1) - 1 + random.normal(0, 0.9) + random.normal(0, 1.6, len(label))
        x, y = 1 + 50 * column, 1 + 50 * row
        if number == 2:
            x = y = np.full(len(label), -1)  # a case whose files do not say where they stood
        path = [f"{name}/{of}/{name}_{at}_class{of}.png" for at, of in enumerate(label)]
        tables.append(pd.DataFrame({"path": path, "case": name, "x": x, "y": y, "split": split, "label": label}))
        tables[-1]["logit"] = logit.astype(np.float32)
    table = pd.concat(tables, ignore_index=True)
    probability = 1 / (1 + np.exp(-table["logit"].to_numpy().astype(np.float64)))
    return table.assign(probability=probability.astype(np.float32))


def draw_thumbnails(table: pd.DataFrame, size: int, random: np.random.Generator) -> np.ndarray:
    """Patches (N, size, size, 3), IDC darker and more violet."""
    base = np.where(table["label"].to_numpy()[:, None] == 1, [150, 95, 160], [225, 170, 205])
    noise = random.normal(0, 14, (len(table), size, size, 1))
    return np.clip(base[:, None, None, :] + noise, 0, 255).astype(np.uint8)


def draw_run(
    folder: Path,
    *,
    names: Sequence[str] | None = None,
    cases: int = 12,
    side: int = 9,
    seed: int = 0,
    noise: float = 0.0,
    outside: int = 1,
    calibrated: bool = True,
    draws: int = 200,
    **overrides: Any,
) -> Path:
    """Write a run folder after `test`.

    Args:
        folder: Where; made.
        names: Names of the test cases; `cases` drawn names where not given.
        cases: Number of test cases.
        side: Grid cells along each side of a case.
        seed: Seed of labels, scores and pictures.
        noise: Deviation of what is added to the logits: another model on the same patches.
        outside: Cases that the split does not name.
        calibrated: Whether threshold and temperature were chosen on validation.
        draws: Bootstrap draws.
        overrides: Entries of metrics.json to set.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names = [str(8000 + number) for number in range(cases)] if names is None else names
    outsiders = [f"{9900 + number}" for number in range(outside)]
    judged = draw_cases(names, side, "test", random)
    validation = draw_cases(["v1", "v2", "v3", "v4"], side, "validation", random)
    parts = [judged, *([draw_cases(outsiders, side, "outside", random)] if outside else [])]
    table = pd.concat(parts, ignore_index=True)
    pictures = draw_thumbnails(table, 8, random)
    if noise:
        logit = table["logit"] + np.random.default_rng(seed + 1).normal(0, noise, len(table))
        table["logit"] = logit.astype(np.float32)
        table["probability"] = (1 / (1 + np.exp(-logit))).astype(np.float32)
    judged = table[table["split"] == "test"]
    scores, chosen = (
        Scores(t["label"].to_numpy(), t["logit"].to_numpy(), t["case"].to_numpy()) for t in (judged, validation)
    )
    calibration = fit_calibration(chosen) if calibrated else None
    colours = random.normal(0, 2, len(judged)) + judged["label"].to_numpy()
    baseline = BaselineScores(0.27, colours, 0.55 if calibrated else None)
    temperature = calibration["temperature"] if calibration else None
    table["probability_calibrated"] = (
        (1 / (1 + np.exp(-table["logit"].astype(np.float64) / temperature))).astype(np.float32)
        if temperature
        else np.full(len(table), np.nan, np.float32)
    )
    metrics = _metrics(scores) | analyse(scores, calibration, baseline, draws) | _circumstances(table, validation)
    write_predictions(folder, table)
    write_metrics(folder, metrics | overrides)
    _write_pictures(folder, table, pictures, random)
    (folder / "config.yaml").write_text("seed_everything: 0\ndata:\n  split: official\n", encoding="utf-8")
    return folder


def edit_metrics(folder: Path, **entries: Any) -> None:
    """Overwrite entries of a drawn metrics.json."""
    path = folder / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | entries), encoding="utf-8")


def _metrics(scores: Scores) -> dict[str, Any]:
    counts = confusion(scores.label, scores.probability, 0.5)
    values = rates(counts)
    return {
        "auroc": auroc(scores.label, scores.probability),
        "average_precision": average_precision(scores.label, scores.probability),
        **{name: values[name] for name in RATES},
        "loss": 0.5,
        "confusion_matrix": [[counts.tn, counts.fp], [counts.fn, counts.tp]],
        "threshold": 0.5,
        "prevalence": values["prevalence"],
        "patches": len(scores.label),
        "cases": len(np.unique(scores.case)),
        "part": "test",
    }


def _circumstances(table: pd.DataFrame, validation: pd.DataFrame) -> dict[str, Any]:
    parts = []
    for part, of in (("train", validation), ("validation", validation), ("test", table[table["split"] == "test"])):
        idc = int(of["label"].sum())
        parts.append(
            {
                "part": part,
                "patches": len(of),
                "cases": of["case"].nunique(),
                "idc": idc,
                "prevalence": idc / len(of),
            }
        )
    return {
        "data": "drawn",
        "fingerprint": "f" * 128,
        "synthetic": False,
        "split": "official",
        "seed": 0,
        "folds": None,
        "fold": None,
        "checkpoint": "best.ckpt",
        "version": "0.1.0",
        "leaks": False,
        "data_flow": {
            "source": {"kind": "zip", "name": "drawn.zip", "fingerprint": "f" * 128, "audit": {"patches": len(table)}},
            "parts": parts,
            "left_out": 3,
            "rejects": {"not a picture": 2},
            "absent": ["9024"],
        },
        "leak_proof": {
            "unit": "case",
            "cases_in_two_parts": 0,
            "patches_in_two_parts": 0,
            "images_in_two_parts": 0,
            "left_out": 3,
        },
        "environment": {
            "time": "2026-01-02T03:04:05+00:00",
            "seconds": 12.5,
            "commit": None,
            "python": "3.11.2",
            "platform": "Linux",
            "processor": "x86_64",
            "devices": ["cpu"],
            "versions": {"torch": "2.11.0", "keras": "3.12.0"},
        },
    }


def _write_pictures(folder: Path, table: pd.DataFrame, thumbnails: np.ndarray, random: np.random.Generator) -> None:
    judged = np.flatnonzero(table["split"].to_numpy() == "test")
    label, probability = table["label"].to_numpy(), table["probability"].to_numpy()
    benign, idc = judged[label[judged] == 0], judged[label[judged] == 1]
    first = benign[np.argsort(-probability[benign], kind="stable")][:MISTAKES]
    second = idc[np.argsort(probability[idc], kind="stable")][:MISTAKES]
    rows = np.concatenate([first, second]).astype(np.int64)
    images = draw_thumbnails(table.iloc[rows], 50, random)
    np.savez_compressed(folder / "pictures.npz", thumbnail=thumbnails, mistake_row=rows, mistake_image=images)


def draw_predictions(
    folder: Path, parts: Mapping[str, Sequence[str]], *, side: int = 14, seed: int = 0, spread: int = 1, **origin: Any
) -> Path:
    """Write what `predict` leaves: predictions of all parts, judged by nobody.

    Args:
        folder: Where; made.
        parts: Part -> names of its cases.
        side: Grid cells along each side of a case.
        seed: Seed of labels and scores.
        spread: Cells from one patch to the next.
        origin: Entries of predictions.json to set.
    """
    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    # Case by case: of several that are drawn together one has no IDC and one no positions.
    table = pd.concat([draw_cases([name], side, part, random) for part in parts for name in parts[part]])
    table[["x", "y"]] = 1 + spread * (table[["x", "y"]] - 1)
    logit = table["logit"].to_numpy(dtype=np.float64)
    table = table.assign(probability=sigmoid(logit).astype(np.float32), probability_calibrated=np.float32(np.nan))
    write_predictions(folder, table.reset_index(drop=True))
    known = {"data": "drawn", "fingerprint": "f" * 128, "synthetic": False, "leaks": False, "checkpoint": "best.ckpt"}
    write_origin(folder, known | {"threshold": 0.4, "temperature": 1.5} | origin)
    return folder
