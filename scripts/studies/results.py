"""Train and test the models of README's table over several seeds, and compare them on the same test patches.

Each figure is the mean over seeds with its 95 % interval over cases; rates are at the threshold that validation chose.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cancernet.data.datamodule import IDCDataModule
from cancernet.errors import InputError, explained
from cancernet.evaluation.baselines import score_baselines
from cancernet.evaluation.bootstrap import (
    Difference,
    Interval,
    bootstrap_case_mean,
    bootstrap_mean,
    bootstrap_rank_correlation,
    paired_mean_difference,
)
from cancernet.evaluation.calibration import sigmoid
from cancernet.evaluation.comparison import align
from cancernet.evaluation.estimates import estimates
from cancernet.evaluation.idc_share import shares
from cancernet.evaluation.per_case import per_case
from cancernet.evaluation.report.formatting import NAMES, figure, signed
from cancernet.files import write_text
from cancernet.options import OptionParser
from cancernet.yaml_files import read_yaml
from scripts.studies.engines import Work, add_options, choose_engine
from scripts.studies.keras_fit import KerasJob
from scripts.studies.repeat import tested_run, threshold_of
from scripts.studies.trials import Job, Trial, data_options, plan, warning

MODELS = Path(__file__).with_name("results.yaml")
SHOWN = ("auroc", "average_precision", "balanced_accuracy", "sensitivity", "specificity", "f1")
COLOURS = "logistic regression on colours"
REFERENCE = "original"
"""Differences are to this model, and to the colours."""

Runs = list[tuple[np.ndarray, float]]
"""Probabilities of the test patches, and the threshold, of each run of a model."""


@dataclass(frozen=True)
class Model:
    """A model of the table.

    Args:
        name: Also that of the folder of its runs.
        title: In the table.
        configs: Configurations that `fit` gets; none for Keras' own fit.
        options: Further options of `fit`.
        runs: It is trained with so many of the seeds at most, the first ones; None takes all.
    """

    name: str
    title: str
    configs: tuple[str, ...]
    options: tuple[str, ...] = ()
    runs: int | None = None


@dataclass(frozen=True)
class Tested:
    """The test patches of a split, their labels and cases, and what each model says of them, by title."""

    label: np.ndarray
    case: np.ndarray
    runs: dict[str, Runs]


def read_models(file: Path) -> list[Model]:
    """Read a YAML file of models.

    Raises:
        InputError: It cannot be read, or holds something else.
    """
    models = read_yaml(file)
    if not isinstance(models, dict) or not all(
        isinstance(model, dict) and isinstance(model.get("configs"), list) for model in models.values()
    ):
        raise InputError(f"{file}: expected the name of each model with its title and configs, as in {MODELS}")
    return [
        Model(
            name,
            str(model.get("title", name)),
            tuple(model["configs"]),
            tuple(model.get("options", ())),
            model.get("runs"),
        )
        for name, model in models.items()
    ]


def list_jobs(
    models: Sequence[Model], trials: dict[str, list[Trial]], data: dict[str, str | None], options: list[str]
) -> list[Work]:
    """List the runs that train and test each model in its trials."""
    jobs: list[Work] = []
    for model in models:
        words = [*(f"--config={config}" for config in model.configs), *data_options(data), *model.options, *options]
        jobs += [
            Job(trial, words, "test", "last") if model.configs else KerasJob(trial, data)
            for trial in trials[model.name]
        ]
    return jobs


def collect(trials: dict[str, list[Trial]]) -> tuple[Tested, pd.Series]:
    """Read what tests left, and the paths of the test patches.

    Args:
        trials: Of each row of the table, by title.

    Raises:
        InputError: A trial was not tested, or not on the same patches.
    """
    tested = {title: [tested_run(trial) for trial in several] for title, several in trials.items()}
    tables = align([one for several in tested.values() for one in several])
    scores = iter(table["probability"].to_numpy() for table in tables)
    runs = {title: [(next(scores), threshold_of(one)) for one in several] for title, several in tested.items()}
    first = tables[0]
    return Tested(first["label"].to_numpy(), first["case"].to_numpy(dtype=object), runs), first["path"]


def _score_colours(data: dict[str, str | None], paths: pd.Series) -> tuple[np.ndarray, float]:
    module = IDCDataModule(**data)  # type: ignore[arg-type]
    module.setup("test")
    index, split = module.store.index, module.split
    row = pd.Series(np.arange(len(index)), index=index["path"].astype(str))
    rows = row[paths.astype(str)].to_numpy()
    label = index["label"].to_numpy()
    scores = score_baselines(module.store.gather, label, split.rows("train"), split.rows("validation"), rows)
    if scores is None or scores.threshold is None:
        raise InputError(f"{data['root']}: training or validation lacks a class; give more cases")
    return sigmoid(scores.logit), scores.threshold


def tabulate(tested: Tested, reference: str | None) -> str:
    """Return the figures of each model, and its differences to the reference and to the colours, as Markdown tables."""
    head = f"| | runs | {' | '.join(NAMES[name] for name in SHOWN)} |"
    rule = "|---|---:|" + "---|" * len(SHOWN)
    lines = [head, rule]
    for title, runs in tested.runs.items():
        means = bootstrap_mean(tested.label, runs, tested.case, metrics=SHOWN)
        each = [estimates(tested.label, probability, at, SHOWN) for probability, at in runs]
        spread = {name: float(np.std([one[name] for one in each], ddof=1)) if len(each) > 1 else None for name in SHOWN}
        cells = [with_interval(means[name], spread=spread[name]) for name in SHOWN]
        lines.append(f"| {title} | {len(runs)} | {' | '.join(cells)} |")
    for other in (reference, COLOURS):
        if other not in tested.runs:
            continue
        lines += ["", f"| less {other} | {head.partition(' runs | ')[2]}", rule.replace("---:|", "", 1)]
        for title, runs in tested.runs.items():
            if title != other:
                less = paired_mean_difference(tested.label, runs, tested.runs[other], tested.case, metrics=SHOWN)
                lines.append(f"| {title} | {' | '.join(with_interval(less[name], signed) for name in SHOWN)} |")
    return "\n".join(lines) + "\n"


def tabulate_shares(tested: Tested) -> str:
    """Return how each model's share of IDC by case agrees with the expert's, as a Markdown table.

    A model's share of a case is the mean over its runs, each at the threshold that validation chose.
    """
    lines = ["| share of IDC by case | Spearman's rank correlation | mean difference |", "|---|---|---|"]
    for title, runs in tested.runs.items():
        found = [shares(per_case(tested.label, probability, tested.case, at)) for probability, at in runs]
        predicted = np.mean([one.predicted for one in found], axis=0)
        rank = bootstrap_rank_correlation(predicted, found[0].expert)
        mean = bootstrap_case_mean(predicted - found[0].expert)
        lines.append(f"| {title} | {with_interval(rank)} | {with_interval(mean, signed)} |")
    return "\n".join(lines) + "\n"


def with_interval(
    found: Interval | Difference, write: Callable[[float], str] = figure, spread: float | None = None
) -> str:
    """Write an estimate, the standard deviation over runs where there is one, and the interval in brackets."""
    deviation = "" if spread is None else f" ± {figure(spread)}"
    return f"{write(found.estimate)}{deviation} ({write(found.low)} to {write(found.high)})"


@explained("results")
def main(arguments: list[str]) -> int:
    """Run from the command line; see `scripts/results`."""
    parser = OptionParser(
        prog="scripts/results", description=__doc__, epilog="All other options go to `cancernet fit`."
    )
    parser.add_argument("output", type=Path, help="folder of all runs and of the tables")
    parser.add_argument("--root", required=True, help="root of the data, as --data.root takes it")
    parser.add_argument("--splits", nargs="+", default=["official", "extended"], help="one table a split")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run a seed (0 1 2)")
    parser.add_argument("--models", type=Path, default=MODELS, help="YAML file of models")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these models only")
    parser.add_argument("--cache", help="folder for packed stores")
    add_options(parser)
    given, options = parser.parse_known_args(arguments)
    engine = choose_engine(given.jobs, given.scheduler)
    models = read_models(given.models)
    if unknown := set(given.only or ()) - {model.name for model in models}:
        names = ", ".join(model.name for model in models)
        raise InputError(f"--only: no model {sorted(unknown)}; {given.models} has {names}")
    chosen = [model for model in models if given.only is None or model.name in given.only]
    reference = next((model.title for model in chosen if model.name == REFERENCE), None)
    for split in given.splits:
        data = {"root": given.root, "split": split, "cache": given.cache}
        folder = given.output.resolve() / Path(split).stem
        trials = {model.name: plan(folder / model.name, given.seeds[: model.runs]) for model in chosen}
        engine(list_jobs(chosen, trials, data, options))
        tested, paths = collect({model.title: trials[model.name] for model in chosen})
        tested.runs[COLOURS] = [_score_colours(data, paths)]
        note = warning(trials[chosen[0].name][0].folder)
        table = f"{note}{tabulate(tested, reference)}\n{tabulate_shares(tested)}"
        write_text(folder.with_suffix(".md"), table)
        print(f"{split}, test part, mean ± deviation over seeds (95 % interval over cases)", table, sep="\n\n")
    print(given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
