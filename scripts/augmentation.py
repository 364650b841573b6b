"""Make the picture of one patch under each augmentation, for the documentation.

unzip -p archive.zip '*8863_idx5_x1301_y1201_class1.png' > patch.png
scripts/python -m scripts.augmentation patch.png docs/augmentation.png
"""

import sys
from pathlib import Path
from typing import get_args

import torch
from matplotlib.figure import Figure

from cancernet.data.augment import Operation, scale_and_augment
from cancernet.errors import explained
from cancernet.options import OptionParser
from cancernet.slides.images import read_image
from scripts.picture import shrink

VERSIONS = 7
ROWS: dict[str, tuple[Operation, ...]] = {
    **{name: (name,) for name in get_args(Operation)},
    "the recipe's three": ("symmetries", "rotation", "stain_jitter"),
}


@explained("augmentation")
def main(arguments: list[str]) -> int:
    """Run from the command line."""
    parser = OptionParser(prog="scripts/python -m scripts.augmentation", description=__doc__)
    parser.add_argument("patch", type=Path, help="image of 50 x 50 pixels")
    parser.add_argument("output", type=Path, help="PNG file")
    parser.add_argument("--seed", type=int, default=0, help="of the augmentations (0)")
    given = parser.parse_args(arguments)
    patch = torch.from_numpy(read_image(given.patch)).permute(2, 0, 1).repeat(VERSIONS, 1, 1, 1)
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axes = figure.subplots(len(ROWS), VERSIONS + 1)
    for row, (name, operations) in zip(axes, ROWS.items(), strict=True):
        changed = scale_and_augment(patch, operations, given.seed)
        for axis, image in zip(row, [patch[0] / 255, *changed], strict=True):
            axis.imshow(image.permute(1, 2, 0).clamp(0, 1), interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        row[0].set_ylabel(name.replace("_", " ").replace(" three", "\nthree"))
    axes[0, 0].set_title("the patch", fontsize="medium")
    axes[0, 1].set_title("as training sees it", fontsize="medium", loc="left")
    figure.savefig(given.output, dpi=100)
    shrink(given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
