"""Write synthetic run folders as `test` and `predict` leave them: blobs of IDC on a grid, scores with noise."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cancernet.evaluation.analysis import Scores, analyse, fit_calibration
from cancernet.evaluation.baselines import BaselineScores
from cancernet.evaluation.calibration import apply_temperature, sigmoid
from cancernet.evaluation.pictures import MISTAKES, Pictures
from cancernet.evaluation.results import PredictionsOrigin, TestMetrics
from cancernet.evaluation.run_folder import write_predicted, write_tested

PROVENANCE: dict[str, Any] = {
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
}


def draw_cases(names: Sequence[str], side: int, part: str, random: np.random.Generator) -> pd.DataFrame:
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
        tables.append(pd.DataFrame({"path": path, "case": name, "x": x, "y": y, "part": part, "label": label}))
        tables[-1]["logit"] = logit.astype(np.float32)
    table = pd.concat(tables, ignore_index=True)
    return table.assign(probability=sigmoid(table["logit"]).astype(np.float32))


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
        names: Names of the test cases; `cases` made-up names where not given.
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
    tested = draw_cases(names, side, "test", random)
    validation = draw_cases(["v1", "v2", "v3", "v4"], side, "validation", random)
    parts = [tested, *([draw_cases(outsiders, side, "outside", random)] if outside else [])]
    table = pd.concat(parts, ignore_index=True)
    thumbnail = draw_thumbnails(table, 8, random)
    if noise:
        logit = table["logit"] + np.random.default_rng(seed + 1).normal(0, noise, len(table))
        table["logit"] = logit.astype(np.float32)
        table["probability"] = sigmoid(table["logit"]).astype(np.float32)
    tested = table[table["part"] == "test"]
    calibration = fit_calibration(Scores.of(validation)) if calibrated else None
    colours = random.normal(0, 2, len(tested)) + tested["label"].to_numpy()
    baseline = BaselineScores(0.27, colours, 0.55 if calibrated else None)
    scaled = (
        np.full(len(table), np.nan)
        if calibration is None
        else apply_temperature(table["logit"], calibration.temperature)
    )
    table["probability_calibrated"] = scaled.astype(np.float32)
    entries = _circumstances(table, validation) | overrides
    metrics = TestMetrics(**dict(analyse(Scores.of(tested), calibration, baseline, draws)) | entries)
    write_tested(folder, metrics, table, draw_pictures(table, thumbnail, random))
    (folder / "config.yaml").write_text("seed_everything: 0\ndata:\n  split: official\n", encoding="utf-8")
    return folder


def edit_metrics(folder: Path, **entries: Any) -> None:
    """Overwrite entries of a metrics.json, as if they had been found."""
    path = folder / "metrics.json"
    content = json.loads(path.read_text(encoding="utf-8")) | entries
    if content["sha256"] is not None:
        content["sha256"].pop("metrics.json")
    path.write_text(json.dumps(content), encoding="utf-8")


def replace_predictions(folder: Path, table: pd.DataFrame, **origin: Any) -> None:
    """Write other predictions into a folder of `predict`, as that writes them, and set entries of their origin."""
    recorded = json.loads((folder / "predictions.json").read_text(encoding="utf-8"))
    write_predicted(folder, PredictionsOrigin(**recorded | origin), table)


def _circumstances(table: pd.DataFrame, validation: pd.DataFrame) -> dict[str, Any]:
    parts = []
    for part, of in (("train", validation), ("validation", validation), ("test", table[table["part"] == "test"])):
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
        "loss": 0.5,
        **PROVENANCE,
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


def draw_pictures(table: pd.DataFrame, thumbnail: np.ndarray, random: np.random.Generator) -> Pictures:
    """Pictures of the most confident mistakes, or of what is nearest to one."""
    tested = np.flatnonzero(table["part"].to_numpy() == "test")
    label, probability = table["label"].to_numpy(), table["probability"].to_numpy()
    benign, idc = tested[label[tested] == 0], tested[label[tested] == 1]
    first = benign[np.argsort(-probability[benign], kind="stable")][:MISTAKES]
    second = idc[np.argsort(probability[idc], kind="stable")][:MISTAKES]
    rows = np.concatenate([first, second]).astype(np.int64)
    activation = random.normal(0, 1, (len(rows), 12, 12)).astype(np.float32)
    return Pictures(thumbnail, rows, draw_thumbnails(table.iloc[rows], 50, random), activation)


def draw_predictions(
    folder: Path, parts: Mapping[str, Sequence[str]], *, side: int = 14, seed: int = 0, spread: int = 1, **origin: Any
) -> Path:
    """Write what `predict` leaves: predictions of all parts, not evaluated.

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
    table = table.assign(probability_calibrated=np.float32(np.nan)).reset_index(drop=True)
    known = PROVENANCE | {"threshold": 0.4, "temperature": 1.5} | origin
    write_predicted(folder, PredictionsOrigin(**known), table)
    return folder
