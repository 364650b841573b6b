"""Measure what averaging could gain: over the eight symmetries of a patch, and over several trained networks.

An average over networks bounds what one network can learn from them as its teachers.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cancernet.data.datamodule import IDCDataModule
from cancernet.errors import InputError, explained
from cancernet.evaluation.calibration import sigmoid
from cancernet.evaluation.estimates import estimates
from cancernet.evaluation.report.formatting import figure, signed
from cancernet.options import OptionParser
from cancernet.training.calibration import predict_rows
from cancernet.training.task import ClassificationTask
from scripts.studies.trials import fitted, warning

CPU = torch.device("cpu")


def score(runs: list[Path]) -> dict[str, float]:
    """Return AUROC on the validation part of each run, of its symmetries' mean, and of the mean over the runs.

    Args:
        runs: Folders of trials on the same fold, a variant each.
    """
    logits: dict[str, np.ndarray] = {}
    for run in runs:
        if (checkpoint := fitted(run, "last.ckpt")) is None:
            raise InputError(f"{run}: holds no last.ckpt of a finished fit; run scripts/ablate first")
        data = IDCDataModule.load_from_checkpoint(checkpoint)
        data.setup("validate")
        rows = data.split.rows("validation")
        task = ClassificationTask.load_from_checkpoint(checkpoint)
        logits[run.parent.name] = predict_rows(task, data, rows, CPU)
        task.tta = True
        logits[f"{run.parent.name}, eight symmetries"] = predict_rows(task, data, rows, CPU)
    alone = [logits[run.parent.name] for run in runs]
    if len(runs) > 1:
        logits[f"mean of these {len(runs)}"] = np.mean(alone, axis=0)
    label = data.store.index["label"].to_numpy()[rows]
    return {name: estimates(label, sigmoid(value), 0.5, ("auroc",))["auroc"] for name, value in logits.items()}


@explained("averages")
def main(arguments: list[str]) -> int:
    """Run from the command line: `scripts/python -m scripts.studies.averages OUTPUT VARIANT...`."""
    parser = OptionParser(prog="scripts.studies.averages", description=__doc__)
    parser.add_argument("output", type=Path, help="folder that scripts/ablate wrote")
    parser.add_argument("variants", nargs="+", help="folders in it; differences are to the first")
    given = parser.parse_args(arguments)
    folds = sorted(run.name for run in (given.output / given.variants[0]).glob("seed-*"))
    table = pd.DataFrame([score([given.output / variant / fold for variant in given.variants]) for fold in folds])
    print(warning(given.output / given.variants[0] / folds[0]), end="")
    print("| | AUROC | less the first |", "|---|---|---|", sep="\n")
    for name in table:
        less = table[name] - table.iloc[:, 0]
        off = f"{signed(less.mean())} ± {figure(less.std() / len(less) ** 0.5)}"
        print(f"| {name} | {figure(table[name].mean())} ± {figure(table[name].std())} | {off} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
