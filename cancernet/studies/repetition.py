"""One configuration over several seeds, each run finished once."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cancernet.cli import main
from cancernet.errors import InputError

FIGURES = ("auroc", "average_precision", "balanced_accuracy", "sensitivity", "specificity", "f1")
"""What a table of runs shows, all from the test part at threshold 0.5."""


def repeat(output: Path, arguments: Sequence[str], seeds: Sequence[int], checkpoint: str = "best") -> pd.DataFrame:
    """Fit and test a configuration once a seed; runs that have been tested before are not run again.

    Args:
        output: Folder of all runs; each seed has a folder of its own in it.
        arguments: Command line of `fit`, without seeds and folders.
        seeds: Each seeds the weights, the order of the patches and the split.
        checkpoint: Which checkpoint is tested, `best` or `last`.

    Returns:
        One row a seed: `seed`, `at_validation_threshold` (balanced accuracy there) and the columns of `FIGURES`.

    Raises:
        InputError: A run failed; those before it are kept.
    """
    rows = []
    for seed in seeds:
        folder = output / f"seed-{seed}"
        if not (finished := _finished(folder)):
            options = [f"--seed_everything={seed}", f"--data.seed={seed}", f"--trainer.default_root_dir={folder}"]
            _run(["fit", *arguments, *options])
            run = max((folder / "lightning_logs").iterdir(), key=lambda path: path.stat().st_mtime)
            # The data is recorded in the checkpoint; where its store is cached is not.
            cache = [argument for argument in arguments if argument.startswith("--data.cache=")]
            _run(["test", f"--ckpt_path={run / 'checkpoints' / f'{checkpoint}.ckpt'}", *cache])
            finished = _finished(folder)
        metrics: dict[str, Any] = json.loads(finished[-1].read_text(encoding="utf-8"))
        chosen = metrics["at_validation_threshold"]["balanced_accuracy"]
        rows.append({"seed": seed, **{name: metrics[name] for name in FIGURES}, "at_validation_threshold": chosen})
    return pd.DataFrame(rows)


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Return mean and standard deviation (over seeds, n - 1) of each figure: one row a figure."""
    figures = runs.drop(columns="seed")
    return pd.DataFrame({"mean": figures.mean(), "sd": figures.std(ddof=1), "runs": figures.count()})


def _finished(folder: Path) -> list[Path]:
    return sorted(folder.glob("lightning_logs/*/metrics.json"))


def _run(arguments: list[str]) -> None:
    if status := main(arguments):
        raise InputError(f"`cancernet {' '.join(arguments)}` ended with status {status}; mend that and run again")


def console(arguments: list[str] | None = None) -> int:
    """Run from the command line; see `scripts/repeat`."""
    parser = argparse.ArgumentParser(prog="scripts/repeat", description=__doc__)
    parser.add_argument("output", type=Path, help="folder of all runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run a seed")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="which checkpoint is tested")
    given, options = parser.parse_known_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    try:
        runs = repeat(given.output, options, given.seeds, given.checkpoint)
    except InputError as error:
        print(f"repeat: error: {error}", file=sys.stderr)
        return 2
    runs.to_csv(given.output / "runs.csv", index=False)
    summarise(runs).to_csv(given.output / "summary.csv")
    print(runs.round(4).to_string(index=False), summarise(runs).round(4).to_string(), given.output, sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(console())
