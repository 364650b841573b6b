"""Tell errors at the edge of the expert's outline, where either label may be right, from errors away from it."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from cancernet.errors import InputError, explained
from cancernet.evaluation.bootstrap import bootstrap
from cancernet.evaluation.context.correction import gather_neighbours
from cancernet.evaluation.results import SYNTHETIC_WARNING
from cancernet.evaluation.run_folder import read_whole
from cancernet.options import OptionParser
from scripts.studies.results import with_interval

LEAST = 5
"""Neighbours of eight that have to be there."""
METRICS = ("auroc", "balanced_accuracy")


def find_edges(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Tell which patches have a neighbour of the other label, and which have neighbours enough to tell.

    Args:
        table: `case`, `x`, `y` and `label`, a row a patch.

    Returns:
        Two (N,) bool arrays.

    >>> row = pd.DataFrame({"case": "a", "x": [1, 51, 101], "y": 1, "label": [0, 0, 1]})
    >>> find_edges(row)[0].tolist()
    [False, True, True]
    """
    label = table["label"].to_numpy(dtype=np.float64)
    count, idc = gather_neighbours(label, table["case"], table["x"], table["y"], rings=1)
    other = np.where(label == 1, count[:, 0] - idc[:, 0], idc[:, 0])
    return other > 0, count[:, 0] >= LEAST


@explained("edges")
def main(arguments: list[str]) -> int:
    """Run from the command line: `scripts/python -m scripts.studies.edges FOLDER CASE...`."""
    parser = OptionParser(prog="scripts.studies.edges", description=__doc__)
    parser.add_argument("folder", type=Path, help="that `predict` wrote")
    parser.add_argument("cases", nargs="+", help="complete cases that did not train the model")
    given = parser.parse_args(arguments)
    predictions, origin = read_whole(given.folder)
    table = predictions[predictions["case"].isin(given.cases)].reset_index(drop=True)
    if trained := sorted(set(table["case"][table["part"] == "train"])):
        raise InputError(f"cases that trained the model: {', '.join(trained)}; name others")
    threshold = 0.5 if origin.threshold is None else origin.threshold
    edge, known = find_edges(table)
    if origin.synthetic:
        print(SYNTHETIC_WARNING, end="\n\n")
    print(
        "| patches | number | IDC | AUROC | balanced accuracy | share of all errors |",
        "|---|---:|---:|---|---|---|",
        sep="\n",
    )
    wrong = (table["probability"] >= threshold) != (table["label"] == 1)
    for name, chosen in (("at an edge", edge & known), ("away from it", ~edge & known), ("both", known)):
        rows = table[chosen]
        found = bootstrap(rows["label"], rows["probability"], rows["case"], threshold, metrics=METRICS)
        cells = [with_interval(found[name]) for name in METRICS]
        share = wrong[chosen].sum() / wrong[known].sum()
        print(f"| {name} | {len(rows):,} | {int(rows['label'].sum()):,} | {' | '.join(cells)} | {share:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
