"""Runs on the same test patches side by side, with the differences that the same draws of cases show."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cancernet.errors import InputError
from cancernet.evaluation.bootstrap import paired_difference
from cancernet.evaluation.calibration import sigmoid
from cancernet.evaluation.metrics import METRICS
from cancernet.evaluation.report import charts
from cancernet.evaluation.report.formatting import (
    LOWER_IS_BETTER,
    NAMES,
    UNDEFINED,
    figure,
    interval,
    signed,
    threshold,
)
from cancernet.evaluation.report.writing import fill
from cancernet.evaluation.run_folder import Run, read_run
from cancernet.files import write_json, write_text

LOSSES = ("brier", "log_loss")
CHANGES = ("data", "synthetic", "split", "seed", "folds", "fold", "leaks", "checkpoint", "version")
"""What the table says of each run: runs that share their test patches may yet have been trained on other ones."""
SHOWN = 3
"""Patches named where two runs were judged on different ones."""


def compare(run_dir: list[Path], output: Path = Path("comparison")) -> None:
    """Put runs on the same test patches side by side: each run's figures, and its difference from the first run.

    Args:
        run_dir: Two run folders or more that `cancernet test` wrote into; the first is what the others are held
            against.
        output: Folder that `comparison.json` and `comparison.html` are written to.
    """
    if len(run_dir) < 2:
        raise InputError("compare: one run given; give two or more run folders")
    result = compare_runs([read_run(folder) for folder in run_dir])
    _print(result)
    output = Path(output)
    print(write_json(output / "comparison.json", result))
    print(write_text(output / "comparison.html", render(result)))


def compare_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """Compare each run with the first one.

    Returns:
        `patches`, `cases`, `prevalence`, `draws`, `level`, `unit`, `warnings` (list of str), `runs`: a list of `name`,
        `folder`, `threshold` (of validation; null without one), the `CHANGES`, and `at_threshold` and
        `at_validation_threshold`: {metric: {`estimate`, `low`, `high`, `draws`}} with, from the second run on,
        `difference_at_threshold` and `difference_at_validation_threshold`: {metric: {`a`, `b`, `estimate` (this run
        less the first), `low`, `high`, `draws`}}. Null where undefined.

    Raises:
        InputError: The runs were judged on different patches.
    """
    tables = align(runs)
    settings = runs[0].metrics["intervals"]
    names = _names(runs)
    entries = []
    for run, table, name in zip(runs, tables, names, strict=True):
        entry = _describe(run, name)
        if run is not runs[0]:
            entry |= _differences(run, table, runs[0], tables[0], settings)
        entries.append(entry)
    return {
        "patches": len(tables[0]),
        "cases": int(tables[0]["case"].nunique()),
        "prevalence": float(tables[0]["label"].mean()),
        "unit": "case",
        **{key: settings[key] for key in ("draws", "level", "seed")},
        "warnings": _warnings(entries),
        "runs": entries,
    }


def render(result: dict[str, Any]) -> str:
    """Return the comparison as a page that needs no other file."""
    plots = []
    for run in result["runs"][1:]:
        differences = run["difference_at_validation_threshold"] or run["difference_at_threshold"]
        rows = [{"name": NAMES[name], **differences[name]} for name in METRICS if name not in LOSSES]
        plots.append({"frame": charts.draw_differences(rows), "rows": rows})
    return fill("comparison.html.j2", result=result, plots=plots, lower=LOWER_IS_BETTER, changes=CHANGES)


def align(runs: Sequence[Run]) -> list[pd.DataFrame]:
    """Return the judged patches of each run, all in the same order: by path.

    Raises:
        InputError: The runs were judged on different patches.
    """
    tables = [run.judged.sort_values("path", kind="stable").reset_index(drop=True) for run in runs]
    for run, table in zip(runs[1:], tables[1:], strict=True):
        _check_same_patches(runs[0], tables[0], run, table)
    return tables


def _check_same_patches(first: Run, a: pd.DataFrame, second: Run, b: pd.DataFrame) -> None:
    """Refuse runs that were judged on different patches, and say how these differ."""
    only_a, only_b = (sorted(set(one["path"]) - set(other["path"])) for one, other in ((a, b), (b, a)))
    advice = "differences are paired, so test both runs on the same patches"
    if only_a or only_b:
        raise InputError(
            f"{second.folder}: judged on other patches than {first.folder} ({len(b):,} and {len(a):,}); "
            f"{_some(only_b)} only in the former, {_some(only_a)} only in the latter; {advice}"
        )
    if len(a) != len(b):
        raise InputError(f"{second.folder}: a patch stands in its predictions more often than in {first.folder}'s")
    for column in ("label", "case"):
        other = np.flatnonzero(a[column].to_numpy() != b[column].to_numpy())
        if len(other):
            at = other[0]
            raise InputError(
                f"{second.folder}: {len(other):,} of {len(a):,} patches have another {column} than in {first.folder}, "
                f"first {a['path'][at]} ({b[column][at]} and {a[column][at]}); {advice}"
            )


def _some(paths: list[str]) -> str:
    if not paths:
        return "none"
    more = f", ... ({len(paths):,} patches)" if len(paths) > SHOWN else ""
    return ", ".join(paths[:SHOWN]) + more


def _names(runs: Sequence[Run]) -> list[str]:
    """Names that tell the runs apart: the paths as given where short names are shared."""
    short = [run.name for run in runs]
    return short if len(set(short)) == len(short) else [f"{number + 1}: {name}" for number, name in enumerate(short)]


def _describe(run: Run, name: str) -> dict[str, Any]:
    chosen, intervals = run.metrics["at_validation_threshold"], run.metrics["intervals"]
    return {
        "name": name,
        "folder": str(run.folder),
        "threshold": None if chosen is None else chosen["threshold"],
        **{key: run.metrics.get(key) for key in CHANGES},
        "at_threshold": intervals["at_threshold"],
        "at_validation_threshold": intervals["at_validation_threshold"],
    }


def _differences(run: Run, table: pd.DataFrame, first: Run, base: pd.DataFrame, settings: Any) -> dict[str, Any]:
    """Paired differences from the first run, at 0.5 and each at its own validation threshold."""
    label, case = base["label"].to_numpy(), base["case"].to_numpy()
    drawn = {key: settings[key] for key in ("draws", "seed", "level")}
    ours, theirs = (part["probability"].to_numpy(dtype=np.float64) for part in (table, base))
    exact = [sigmoid(part["logit"].to_numpy(dtype=np.float64)) for part in (table, base)]
    ranks = [name for name in METRICS if name not in LOSSES]
    calls = [name for name in ranks if name not in ("auroc", "average_precision")]
    fixed = paired_difference(label, ours, theirs, case, metrics=ranks, **drawn)
    fixed |= paired_difference(label, exact[0], exact[1], case, metrics=LOSSES, **drawn)
    chosen = [part.metrics["at_validation_threshold"] for part in (run, first)]
    own = None
    if None not in chosen:
        thresholds = [part["threshold"] for part in chosen]
        own = fixed | paired_difference(label, ours, theirs, case, *thresholds, metrics=calls, **drawn)
    return {
        "difference_at_threshold": _plain(fixed),
        "difference_at_validation_threshold": None if own is None else _plain(own),
    }


def _plain(differences: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        name: {key: None if value != value else value for key, value in asdict(differences[name]).items()}
        for name in METRICS
    }


def _warnings(entries: list[dict[str, Any]]) -> list[str]:
    """What a reader must know before believing a difference."""
    said = []
    if any(entry["synthetic"] for entry in entries):
        said.append("Synthetic data: a program drew the patches; no figure says anything about tissue.")
    leaking = [entry["name"] for entry in entries if entry["leaks"]]
    if leaking and len(leaking) < len(entries):
        said.append(
            f"Split by patch, so neighbours of the judged patches trained it: {', '.join(leaking)}. Its advantage over "
            "a run split by case is the leak's as much as the model's."
        )
    elif leaking:
        said.append("All runs were split by patch: neighbours of the judged patches trained the models.")
    if len({_training_parts(entry) for entry in entries}) > 1:
        said.append("The runs were trained on different splits; a difference may be that of their training data.")
    return said


def _training_parts(entry: dict[str, Any]) -> tuple[object, ...]:
    """What determines the training part; published lists know no seed."""
    seed = entry["seed"] if entry["split"] in ("case", "patch") else None
    return entry["data"], entry["split"], seed, entry["folds"], entry["fold"]


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    console.print(
        f"\n{result['patches']:,} test patches of {result['cases']} cases, prevalence {result['prevalence']:.3f}. "
        f"Intervals: {100 * result['level']:g} %, {result['draws']:,} paired draws of whole cases."
    )
    for warning in result["warnings"]:
        console.print(Text(warning, style="bold red"))
    table = Table()
    table.add_column("")
    for number, run in enumerate(result["runs"]):
        table.add_column(Text(run["name"]), justify="right")
        if number:
            table.add_column("less the first", justify="right")
    for key in CHANGES:
        cells = [[_said(run[key]), *([""] if number else [])] for number, run in enumerate(result["runs"])]
        table.add_row(key, *(Text(cell) for pair in cells for cell in pair))
    for key, title in (("threshold", "at 0.5"), ("validation_threshold", "at validation's threshold")):
        table.add_section()
        table.add_row(Text(title, style="bold"), *_thresholds(result, key))
        for name in METRICS:
            if key == "threshold" or name not in ("auroc", "average_precision", *LOSSES):
                table.add_row(NAMES[name], *_cells(result["runs"], key, name))
    console.print(table)


def _said(value: object) -> str:
    """Write a setting of a run."""
    if value is None:
        return UNDEFINED
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _thresholds(result: dict[str, Any], key: str) -> list[str]:
    cells: list[str] = []
    for number, run in enumerate(result["runs"]):
        cells += [threshold(run["threshold"]) if key == "validation_threshold" else "", *([""] if number else [])]
    return cells


def _cells(runs: list[dict[str, Any]], key: str, name: str) -> list[str]:
    cells = []
    for number, run in enumerate(runs):
        value = None if run[f"at_{key}"] is None else run[f"at_{key}"][name]
        cells.append(figure(value["estimate"] if value else None) + (f"\n{interval(value)}" if value else ""))
        if number:
            differences = run[f"difference_at_{key}"]
            change = None if differences is None else differences[name]
            cells.append(signed(change["estimate"] if change else None) + (f"\n{interval(change)}" if change else ""))
    return cells
