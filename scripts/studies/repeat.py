"""Train and test one configuration over several seeds and folds; finished runs are kept."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cancernet.errors import InputError, explained
from cancernet.evaluation.bootstrap import paired_mean_difference
from cancernet.evaluation.comparison import align
from cancernet.evaluation.run_folder import Run, read_run
from cancernet.options import OptionParser
from scripts.studies.engines import Engine, add_options, choose_engine, run_here
from scripts.studies.trials import Job, Part, Trial, columns, newest_test, plan, read_figures, warning

COMPARED = ("auroc", "average_precision", "balanced_accuracy", "f1")


def repeat(
    trials: Sequence[Trial],
    arguments: Sequence[str],
    part: Part = "test",
    checkpoint: str = "best",
    engine: Engine = run_here,
) -> pd.DataFrame:
    """Train and evaluate a configuration in each trial; finished runs are kept.

    Args:
        trials: See `Job`, as for the rest.
        arguments: Command line of `fit`.
        part: The part that is evaluated on.
        checkpoint: Which checkpoint is evaluated.
        engine: Where the runs take place.

    Returns:
        One row a trial: `seed`, `fold` in cross-validation, and the metrics of the part.

    Raises:
        InputError: A run failed, left nothing to read, or was made with other options; the others are kept.
    """
    jobs = [Job(trial, arguments, part, checkpoint) for trial in trials]
    engine(jobs)
    return collect(jobs)


def collect(jobs: Sequence[Job]) -> pd.DataFrame:
    """Return the table that `repeat` returns of jobs that are complete."""
    return pd.DataFrame([{**job.trial.row, **read_figures(job)} for job in jobs])


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
    first, second = ([tested_run(trial) for trial in side] for side in (trials, others))
    runs = [*first, *second]
    tables = align(runs)
    scores = [(table["probability"].to_numpy(), threshold_of(run)) for run, table in zip(runs, tables, strict=True)]
    label, case = tables[0]["label"].to_numpy(), tables[0]["case"].to_numpy(dtype=object)
    a, b = scores[: len(first)], scores[len(first) :]
    differences = paired_mean_difference(label, a, b, case, metrics=COMPARED)
    return pd.DataFrame([{"metric": name, **vars(difference)} for name, difference in differences.items()])


def read_tested(trials: Sequence[Trial]) -> pd.DataFrame:
    """Return the table that `repeat` returns of trials that were tested, however they were trained.

    Raises:
        InputError: A trial was not tested.
    """
    return pd.DataFrame([{**trial.row, **columns(tested_run(trial).metrics)} for trial in trials])


def tested_run(trial: Trial) -> Run:
    """Read what the newest test of a trial left.

    Raises:
        InputError: It was not tested.
    """
    found = newest_test(trial.folder)
    if found is None:
        raise InputError(f"{trial.folder}: no tested run to compare with; repeat that configuration first")
    return read_run(found[0])


def threshold_of(run: Run) -> float:
    """Return the threshold that validation chose for a run; 0.5 where it has none."""
    chosen = run.metrics.at_validation_threshold
    return 0.5 if chosen is None or chosen.threshold is None else chosen.threshold


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
    add_options(parser)
    given, options = parser.parse_known_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    trials = plan(given.output.resolve(), given.seeds, given.folds)
    engine = choose_engine(given.jobs, given.scheduler)
    runs = repeat(trials, options, given.part, given.checkpoint, engine)
    runs.to_csv(given.output / "runs.csv", index=False)
    summary = summarise(runs)
    summary.to_csv(given.output / "summary.csv")
    print(warning(trials[0].folder), end="")
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
