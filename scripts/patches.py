"""Make the picture of some patches of an archive, benign above IDC of the same case, for the documentation.

scripts/python -m scripts.patches archive.zip docs/patches.png
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cancernet.data.batches import evenly_spaced
from cancernet.data.store.find import find_store
from cancernet.errors import explained
from cancernet.options import OptionParser
from scripts.picture import shrink

CASES = 8


@explained("patches")
def main(arguments: list[str]) -> int:
    """Run from the command line."""
    parser = OptionParser(prog="scripts/python -m scripts.patches", description=__doc__)
    parser.add_argument("archive", help="root of the data, as --data.root takes it")
    parser.add_argument("output", type=Path, help="PNG file")
    parser.add_argument("--cache", type=Path, help="folder for packed stores")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of patches (0)")
    given = parser.parse_args(arguments)
    store = find_store(given.archive, given.cache)
    chosen = store.index.reset_index(names="row").sample(frac=1, random_state=given.seed)
    rows = chosen.groupby(["case", "label"])["row"].first().unstack("label").dropna().astype(np.int64)
    rows = rows.iloc[evenly_spaced(len(rows), CASES)]
    figure = Figure(figsize=(9, 2.6), layout="constrained")
    axes = figure.subplots(2, len(rows), squeeze=False)
    for label, name in enumerate(("benign", "IDC")):
        for axis, case, image in zip(axes[label], rows.index, store.gather(rows[label].to_numpy()), strict=True):
            axis.imshow(image)
            axis.set(xticks=[], yticks=[], title="" if label else f"case {case}")
        axes[label, 0].set_ylabel(name)
    figure.savefig(given.output, dpi=100)
    shrink(given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
