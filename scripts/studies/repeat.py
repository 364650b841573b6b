"""Train and test one configuration over several seeds and folds; finished runs are kept."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from cancernet.checkpoints import read_checkpoint
from cancernet.cli import main as cancernet
from cancernet.errors import InputError, explained
from cancernet.evaluation.bootstrap import paired_mean_difference
from cancernet.evaluation.comparison import align
from cancernet.evaluation.results import TestMetrics
from cancernet.evaluation.run_folder import METRICS, Run, read_metrics, read_run
from cancernet.files import write_json
from cancernet.options import OptionParser
from cancernet.training.checkpoints import recorded_calibration
from cancernet.yaml_files import read_yaml

Part = Literal["validation", "test"]

FIGURES = ("auroc", "average_precision", "balanced_accuracy", "sensitivity", "specificity", "f1")
"""Columns of tested runs, at threshold 0.5."""
VALIDATION_FIGURES = ("auroc", "average_precision", "balanced_accuracy")
"""Columns of validated runs; the balanced accuracy is at the threshold that was chosen on the same part."""
AT_CHOSEN = "balanced_accuracy_at_validation_threshold"
RECORD = "options.json"
"""File in the folder of a trial: the options that its run was made with."""
CONFIG_OPTIONS = ("--config", "-c")
COMPARED = ("auroc", "average_precision", "balanced_accuracy", "f1")


@dataclass(frozen=True)
class Trial:
    """One run of a study: its seed, its fold, the number of folds (None without cross-validation), and its folder."""

    seed: int
    folder: Path
    fold: int | None = None
    folds: int | None = None

    @property
    def options(self) -> list[str]:
        """Options of `fit` for this trial."""
        seeds = [f"--seed_everything={self.seed}", f"--data.seed={self.seed}"]
        fold = [] if self.fold is None else [f"--data.folds={self.folds}", f"--data.fold={self.fold}"]
        return [*seeds, *fold, f"--trainer.default_root_dir={self.folder}"]

    @property
    def row(self) -> dict[str, int]:
        """Columns that tell it from the others in a table."""
        return {"seed": self.seed} | ({} if self.fold is None else {"fold": self.fold})


def plan(output: Path, seeds: Sequence[int], folds: int | None = None) -> list[Trial]:
    """List the trials of a study, each with a folder: every seed, or every fold of every seed."""
    if folds is None:
        return [Trial(seed, output / f"seed-{seed}") for seed in seeds]
    return [Trial(seed, output / f"seed-{seed}-fold-{fold}", fold, folds) for seed in seeds for fold in range(folds)]


def repeat(
    trials: Sequence[Trial], arguments: Sequence[str], part: Part = "test", checkpoint: str = "best"
) -> pd.DataFrame:
    """Train and evaluate a configuration in each trial; finished runs are kept.

    Args:
        trials: From `plan`. A seed is that of the weights, the order of the patches and, where it is random, the split.
        arguments: Command line of `fit`, without seeds and folders.
        part: `validation` never looks at the test part, so that recipes can be chosen by it.
        checkpoint: Which checkpoint is evaluated, `best` or `last`.

    Returns:
        One row a trial: `seed`, `fold` in cross-validation, and the metrics of the part.

    Raises:
        InputError: A run failed, left nothing to read, or was made with other options; those before it are kept.
    """
    return pd.DataFrame([{**trial.row, **_evaluate(trial, arguments, part, f"{checkpoint}.ckpt")} for trial in trials])


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Return mean and standard deviation (over runs, n - 1) of each figure: one row a figure."""
    figures = runs.drop(columns=["seed", "fold"], errors="ignore")
    return pd.DataFrame({"mean": figures.mean(), "sd": figures.std(ddof=1), "runs": figures.count()})


def contrast(trials: Sequence[Trial], others: Sequence[Trial]) -> pd.DataFrame:
    """Compare the mean over the trials of one configuration with that of another, on the same test patches.

    Returns:
        One row a metric of `COMPARED`, the rates at each run's validation threshold (0.5 where it has none):
        `a`, `b`, `estimate` (a - b), `low` and `high` (95 % over cases, paired), `draws`.

    Raises:
        InputError: A trial was not tested, or not on the same patches.
    """
    first, second = ([_tested(trial) for trial in side] for side in (trials, others))
    runs = [*first, *second]
    tables = align(runs)
    scores = [(table["probability"].to_numpy(), _threshold(run)) for run, table in zip(runs, tables, strict=True)]
    label, case = tables[0]["label"].to_numpy(), tables[0]["case"].to_numpy(dtype=object)
    a, b = scores[: len(first)], scores[len(first) :]
    differences = paired_mean_difference(label, a, b, case, metrics=COMPARED)
    return pd.DataFrame([{"metric": name, **vars(difference)} for name, difference in differences.items()])


def _evaluate(trial: Trial, arguments: Sequence[str], part: Part, checkpoint: str) -> dict[str, float | None]:
    """Return the metrics of a trial; what is missing of its run is run."""
    file = _fitted(trial.folder, checkpoint)
    wanted = _spell_out(arguments)
    if file is not None:
        _check_same(trial.folder / RECORD, wanted)
    else:
        write_json(trial.folder / RECORD, {"options": wanted})
        run_command(["fit", *arguments, *trial.options])
        file = _fitted(trial.folder, checkpoint)
        if file is None:
            raise InputError(f"{trial.folder}: fit left no {checkpoint} here; leave checkpoints and their folder on")
    if part == "validation":
        calibration = recorded_calibration(read_checkpoint(file))
        if calibration is None or "auroc" not in calibration:
            raise InputError(f"{file}: an earlier version calibrated it; run `cancernet calibrate {file}`")
        return {name: calibration[name] for name in VALIDATION_FIGURES}
    if (found := _newest_test(trial.folder, checkpoint)) is None:
        run_command(["test", f"--ckpt_path={file}"])
        if (found := _newest_test(trial.folder, checkpoint)) is None:
            raise InputError(f"{trial.folder}: test left no {METRICS} of {checkpoint} here")
    return _columns(found[1])


def _spell_out(arguments: Sequence[str]) -> list[Any]:
    """Return a command line with the names of configuration files replaced by their content."""
    spelled: list[Any] = []
    previous = ""
    for argument in arguments:
        name, _, value = argument.partition("=")
        file = value if name in CONFIG_OPTIONS else argument if previous in CONFIG_OPTIONS else ""
        readable = file != "" and Path(file).is_file()
        spelled.append(read_yaml(file) if readable else argument)
        previous = argument
    return spelled


def _check_same(record: Path, wanted: list[Any]) -> None:
    """Refuse a finished run of another configuration.

    Raises:
        InputError: The finished run was made with other options than those given now.
    """
    if not record.exists():
        return
    made = json.loads(record.read_text(encoding="utf-8"))["options"]
    now = json.loads(json.dumps(wanted))
    if made != now:
        other = next((a for a, b in zip_longest(now, made) if a != b), None)
        raise InputError(
            f"{record.parent}: finished with other options than these (first difference: {other}); "
            "give another output folder, or remove this one"
        )


def read_tested(trials: Sequence[Trial]) -> pd.DataFrame:
    """Return the table that `repeat` returns of trials that were tested, however they were trained.

    Raises:
        InputError: A trial was not tested.
    """
    return pd.DataFrame([{**trial.row, **_columns(_tested(trial).metrics)} for trial in trials])


def is_tested(trial: Trial) -> bool:
    """Return whether a test left its metrics."""
    return _newest_test(trial.folder) is not None


def _columns(metrics: TestMetrics) -> dict[str, float | None]:
    chosen = metrics.at_validation_threshold
    columns = {name: getattr(metrics, name) for name in FIGURES}
    return columns if chosen is None else {**columns, AT_CHOSEN: chosen.balanced_accuracy}


def _fitted(folder: Path, checkpoint: str) -> Path | None:
    """Return the newest checkpoint of a fit that came to its end: it is calibrated there."""
    files = sorted(folder.glob(f"lightning_logs/*/checkpoints/{checkpoint}"), key=lambda file: file.stat().st_mtime)
    finished = [file for file in files if recorded_calibration(read_checkpoint(file)) is not None]
    return finished[-1] if finished else None


def _newest_test(folder: Path, checkpoint: str | None = None) -> tuple[Path, TestMetrics] | None:
    """Return the run folder and the metrics of the newest test, of a certain checkpoint if it is given."""
    for file in sorted(folder.glob(f"lightning_logs/**/{METRICS}"), key=lambda file: -file.stat().st_mtime):
        metrics = read_metrics(file.parent)
        if checkpoint in (None, metrics.checkpoint):
            return file.parent, metrics
    return None


def _tested(trial: Trial) -> Run:
    found = _newest_test(trial.folder)
    if found is None:
        raise InputError(f"{trial.folder}: no tested run to compare with; repeat that configuration first")
    return read_run(found[0])


def _threshold(run: Run) -> float:
    chosen = run.metrics.at_validation_threshold
    return 0.5 if chosen is None or chosen.threshold is None else chosen.threshold


def run_command(arguments: list[str]) -> None:
    """Run a command of `cancernet` in this process.

    Raises:
        InputError: It failed, and has said why.
    """
    if status := cancernet(arguments):
        raise InputError(f"`cancernet {' '.join(arguments)}` ended with status {status}; fix that and run again")


@explained("repeat")
def main(arguments: list[str]) -> int:
    """Run from the command line; see `scripts/repeat`."""
    parser = OptionParser(prog="scripts/repeat", description=__doc__, epilog="All other options go to `cancernet fit`.")
    parser.add_argument("output", type=Path, help="folder of all runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run a seed (0 1 2)")
    parser.add_argument("--folds", type=int, help="one run a fold of every seed")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="which checkpoint is evaluated")
    parser.add_argument(
        "--part", choices=("validation", "test"), default="test", help="the part that it is evaluated on"
    )
    parser.add_argument("--against", type=Path, help="output folder of another configuration, to compare with")
    given, options = parser.parse_known_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    trials = plan(given.output, given.seeds, given.folds)
    runs = repeat(trials, options, given.part, given.checkpoint)
    runs.to_csv(given.output / "runs.csv", index=False)
    summary = summarise(runs)
    summary.to_csv(given.output / "summary.csv")
    print(runs.round(4).to_string(index=False), summary.round(4).to_string(), sep="\n\n", end="\n\n")
    if given.against is not None:
        differences = contrast(trials, plan(given.against, given.seeds, given.folds))
        differences.to_csv(given.output / f"against-{given.against.name}.csv", index=False)
        print(f"difference from {given.against}: means over the runs, 95 % intervals over cases")
        print(differences.round(4).to_string(index=False), end="\n\n")
    print(given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
