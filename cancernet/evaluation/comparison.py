"""Compare runs on the same test patches, with differences paired by draws of cases."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cancernet.errors import InputError
from cancernet.evaluation.analysis import Scores, differences_of
from cancernet.evaluation.integrity import refuse_part
from cancernet.evaluation.results import SYNTHETIC_WARNING, ComparedRun, Comparison, Provenance
from cancernet.evaluation.run_folder import AGAIN, Run
from cancernet.evaluation.values import Bootstrap, BothIntervals, Difference, PerMetric

SHOWN = 3
"""Patches named where two runs were tested on different ones."""


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """Compare each run with the first one.

    Raises:
        InputError: The runs were tested on different patches, or one on a part of them.
    """
    for run in runs:
        refuse_part(run.folder, run.metrics, AGAIN)
    tables = align(runs)
    settings = Bootstrap.model_validate(runs[0].metrics.intervals)
    names = _names(runs)
    compared = [_describe(runs[0], names[0])]
    for run, table, name in zip(runs[1:], tables[1:], names[1:], strict=True):
        compared.append(_describe(run, name, **_differences(run, table, runs[0], tables[0], settings)))
    return Comparison(
        **dict(settings),
        patches=len(tables[0]),
        cases=int(tables[0]["case"].nunique()),
        prevalence=float(tables[0]["label"].mean()),
        warnings=_warnings(compared),
        runs=compared,
    )


def align(runs: Sequence[Run]) -> list[pd.DataFrame]:
    """Return the test patches of each run, all in the same order: by path.

    Raises:
        InputError: The runs were tested on different patches.
    """
    tables = [run.tested.sort_values("path", kind="stable").reset_index(drop=True) for run in runs]
    for run, table in zip(runs[1:], tables[1:], strict=True):
        _check_same_patches(runs[0], tables[0], run, table)
    return tables


def _check_same_patches(first: Run, a: pd.DataFrame, second: Run, b: pd.DataFrame) -> None:
    """Refuse runs that were tested on different patches, and say how these differ."""
    only_a, only_b = (sorted(set(one["path"]) - set(other["path"])) for one, other in ((a, b), (b, a)))
    advice = "differences are paired, so test both runs on the same patches"
    if only_a or only_b:
        raise InputError(
            f"{second.folder}: tested on other patches than {first.folder} ({len(b):,} and {len(a):,}); "
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


def _describe(run: Run, name: str, **differences: PerMetric[Difference] | None) -> ComparedRun:
    fields = {"name": name, "folder": str(run.folder), "threshold": run.metrics.validation_threshold, **differences}
    provenance, intervals = Provenance.model_validate(run.metrics), BothIntervals.model_validate(run.metrics.intervals)
    return ComparedRun.model_validate({**dict(provenance), **dict(intervals), **fields})


def _differences(
    run: Run, table: pd.DataFrame, first: Run, base: pd.DataFrame, settings: Bootstrap
) -> dict[str, PerMetric[Difference] | None]:
    """Differences from the first run, at 0.5 and each at its own validation threshold."""
    scores, others = Scores.of(table), Scores.of(base)
    chosen, chosen_first = (one.metrics.validation_threshold for one in (run, first))
    own = None
    if chosen is not None and chosen_first is not None:
        own = differences_of(scores, others, chosen, chosen_first, settings)
    return {
        "difference_at_threshold": differences_of(scores, others, 0.5, 0.5, settings),
        "difference_at_validation_threshold": own,
    }


def _warnings(runs: Sequence[ComparedRun]) -> list[str]:
    """What a reader must know before believing a difference."""
    said = []
    if any(run.synthetic for run in runs):
        said.append(SYNTHETIC_WARNING)
    leaking = [run.name for run in runs if run.leaks]
    if leaking and len(leaking) < len(runs):
        said.append(
            f"Split by patch, so neighbours of the tested patches trained it: {', '.join(leaking)}. Its advantage over "
            "a run split by case is the leak's as much as the model's."
        )
    elif leaking:
        said.append("All runs were split by patch: neighbours of the tested patches trained the models.")
    if len({_training_parts(run) for run in runs}) > 1:
        said.append("The runs were trained on different splits; a difference may be that of their training data.")
    return said


def _training_parts(run: ComparedRun) -> tuple[object, ...]:
    """What determines the training part; published lists know no seed."""
    seed = run.seed if run.split in ("case", "patch") else None
    return run.data, run.split, seed, run.folds, run.fold
