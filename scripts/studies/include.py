"""Compute the figures of the included model's card again, or make a model and its card of a trained checkpoint."""

import difflib
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from cancernet.checkpoints import read_checkpoint, replace_checkpoint
from cancernet.errors import InputError, explained
from cancernet.options import OptionParser
from cancernet.pretrained import FOLDER, INCLUDED, RESULTS
from cancernet.training.calibrate import calibrate
from scripts.studies.trials import data_options, run_command

CARD = "model_card.md"
KEPT = ("epoch", "global_step", "pytorch-lightning_version", "hyper_parameters", "cancernet", "IDCDataModule")
"""Entries of a checkpoint that its use needs, besides the weights; the optimiser's state is three times as large."""
VARIES = "## Environment"
"""Head of the card's part that differs from machine to machine."""


def reduce(content: dict[str, Any]) -> dict[str, Any]:
    """Return what the use of a checkpoint needs: weights in half precision, and no path of the machine that trained it.

    Args:
        content: Of a checkpoint.

    Returns:
        A checkpoint's content that can be loaded, tested and trained on.
    """
    weights = {
        name: value.half() if value.is_floating_point() else value for name, value in content["state_dict"].items()
    }
    kept = {name: content[name] for name in KEPT}
    record = kept["IDCDataModule"]
    arguments = {**record["arguments"], "root": Path(record["arguments"]["root"]).name, "cache": None}
    return {
        **kept,
        "state_dict": weights,
        "callbacks": {},
        "optimizer_states": [],
        "lr_schedulers": [],
        "IDCDataModule": {**record, "arguments": arguments},
    }


def make(checkpoint: Path, root: str, output: Path, cache: str | None = None) -> None:
    """Write the reduced model, calibrated as it then is, and its card.

    Args:
        checkpoint: That `cancernet fit` wrote.
        root: Root of the data that trained it.
        output: Folder for the two files, which bear the included model's name.
        cache: Folder for packed stores.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoints" / f"{INCLUDED}.ckpt"
        file.parent.mkdir()
        replace_checkpoint(file, reduce(read_checkpoint(checkpoint)))
        calibrate(file, root=root, cache=cache)
        run_command(["test", f"--ckpt_path={file}", *data_options({"root": root, "cache": cache})])
        output.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, output)
        shutil.copy(file.parents[1] / CARD, output / f"{INCLUDED}.md")
    print(output / file.name)


def check(root: str, cache: str | None = None) -> None:
    """Test the included model, and compare the card of that test with its own.

    Raises:
        InputError: They differ in more than the machine.
    """
    run_command(["test", f"--ckpt_path={INCLUDED}", *data_options({"root": root, "cache": cache})])
    found = RESULTS / CARD
    card, now = (
        file.read_text(encoding="utf-8").partition(VARIES)[0].splitlines()
        for file in (FOLDER / f"{INCLUDED}.md", found)
    )
    if different := list(difflib.unified_diff(card, now, "its card", str(found), lineterm="", n=0)):
        print(*different, sep="\n")
        raise InputError(f"{root}: the figures differ from the card's; give the data that the card names")
    print(f"{INCLUDED}: every figure of its card")


@explained("include")
def main(arguments: list[str]) -> int:
    """Run from the command line; see `scripts/include`."""
    parser = OptionParser(prog="scripts/include", description=__doc__)
    parser.add_argument("--root", required=True, help="root of the data, as --data.root takes it")
    parser.add_argument("--checkpoint", type=Path, help="make the model of this one")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of what is made; the package's own")
    parser.add_argument("--cache", help="folder for packed stores")
    given = parser.parse_args(arguments)
    if given.checkpoint is None:
        check(given.root, given.cache)
    else:
        make(given.checkpoint, given.root, given.output, given.cache)
    return 0


if __name__ == "__main__":
    sys.exit(main())
