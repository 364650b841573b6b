"""Train one recipe on ever more training cases, and test on the same patches; finished runs are kept."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from cancernet.data.datamodule import IDCDataModule
from cancernet.data.splits import Split
from cancernet.errors import InputError, explained
from cancernet.files import write_text
from cancernet.options import OptionParser
from scripts.studies.engines import add_options, choose_engine
from scripts.studies.results import collect, tabulate
from scripts.studies.trials import Job, data_options, plan, warning

PARTS = "parts.csv"
"""File in the folder of a run: its split."""


def cut(split: Split, index: pd.DataFrame, patches: int, seed: int) -> pd.DataFrame:
    """Choose training cases at random until they hold a number of patches; the other parts stay.

    Args:
        split: Of whole cases.
        index: The store's index table.
        patches: Of the training part, at least; the last case is taken whole.
        seed: Orders the cases. The cases of a smaller number are among those of a larger one.

    Returns:
        `case` and `part`, as `--data.split` reads them.

    Raises:
        InputError: The training part holds fewer.
    """
    table = split.table(index)
    training = table[table["part"] == "train"]
    if not 0 < patches <= training["patches"].sum():
        raise InputError(f"--patches {patches}: the training part holds {training['patches'].sum():,}")
    training = training.iloc[np.random.default_rng(seed).permutation(len(training))]
    before = training["patches"].cumsum() - training["patches"]
    others = table[table["part"].isin(["validation", "test"])]
    return pd.concat([training[before < patches], others])[["case", "part"]]


@explained("learning_curve")
def main(arguments: list[str]) -> int:
    """Run from the command line; see `scripts/learning_curve`."""
    parser = OptionParser(
        prog="scripts/learning_curve", description=__doc__, epilog="All other options go to `cancernet fit`."
    )
    parser.add_argument("output", type=Path, help="folder of all runs and of the table")
    parser.add_argument("--root", required=True, help="root of the data, as --data.root takes it")
    parser.add_argument("--split", default="extended", help="whose training cases are taken (extended)")
    parser.add_argument("--patches", type=int, nargs="+", default=[2000, 4000, 9000], help="(2000 4000 9000)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run a seed, with cases of its own")
    parser.add_argument("--cache", help="folder for packed stores")
    add_options(parser)
    given, options = parser.parse_known_args(arguments)
    engine = choose_engine(given.jobs, given.scheduler)
    data = IDCDataModule(given.root, split=given.split, cache=given.cache)
    data.setup("fit")
    of_data = data_options({"root": given.root, "cache": given.cache})
    jobs, trials = [], {}
    for patches in given.patches:
        trials[f"{patches:,} training patches"] = several = plan(given.output.resolve() / str(patches), given.seeds)
        for trial in several:
            parts = cut(data.split, data.store.index, patches, trial.seed)
            file = write_text(trial.folder / PARTS, parts.to_csv(index=False))
            jobs.append(Job(trial, [*options, *of_data, f"--data.split={file}"], "test", "last"))
    engine(jobs)
    table = warning(jobs[0].trial.folder) + tabulate(collect(trials)[0], None)
    write_text(given.output / "learning_curve.md", table)
    print("Test part, mean ± deviation over seeds (95 % interval over cases)", table, given.output, sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
