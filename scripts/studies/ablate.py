"""Train variants of one configuration and compare them on the validation part: the effect of each ingredient."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from cancernet.errors import InputError, explained
from cancernet.evaluation.report.formatting import figure, signed
from cancernet.files import write_text
from cancernet.options import OptionParser
from cancernet.yaml_files import read_yaml
from scripts.studies.engines import add_options, choose_engine
from scripts.studies.repeat import collect
from scripts.studies.trials import VALIDATION_FIGURES, Job, plan, warning

VARIANTS = Path(__file__).with_name("ablation.yaml")
CHANGE = "variant.yaml"
"""File in the folder of a variant: what it changes."""


@dataclass(frozen=True)
class Variant:
    """A variant: its name, its title in the table, and its change of the configuration, as `fit --config` takes it."""

    name: str
    title: str
    change: dict[str, Any]

    def folder(self, output: Path) -> Path:
        """Return the folder of its runs: named by the name, or by the title, as earlier versions did."""
        named, titled = (output / text.replace(" ", "-") for text in (self.name, self.title))
        return titled if titled.exists() and not named.exists() else named


def read_variants(file: Path) -> list[Variant]:
    """Read a YAML file of variants.

    Raises:
        InputError: It cannot be read, or holds something else.
    """
    variants = read_yaml(file)
    if not isinstance(variants, dict) or not all(isinstance(change, dict) for change in variants.values()):
        raise InputError(f"{file}: expected the name of each variant, and below it what it changes, as in {VARIANTS}")
    return [
        Variant(name, str(change.get("title", name)), {key: change[key] for key in change if key != "title"})
        for name, change in variants.items()
    ]


def list_jobs(variant: Variant, output: Path, arguments: Sequence[str], given: argparse.Namespace) -> list[Job]:
    """List the runs of a variant; its change is written next to them, where a process on another machine finds it."""
    folder = variant.folder(output)
    file = write_text(folder / CHANGE, yaml.safe_dump(variant.change))
    trials = plan(folder, given.seeds, given.folds)
    return [Job(trial, [*arguments, f"--config={file}"], "validation", given.checkpoint) for trial in trials]


def tabulate(runs: dict[str, pd.DataFrame]) -> str:
    """Return the metrics of each variant, by its title, as a Markdown table.

    Means and standard deviations over the runs; differences in AUROC from the first variant's run of the same seed and
    fold, as the mean over these pairs and its standard error.
    """
    lines = ["| variant | AUROC | less the first | average precision | balanced accuracy |", "|---|---|---|---|---|"]
    reference = next(iter(runs.values()))["auroc"]
    for name, table in runs.items():
        auroc, *others = (f"{figure(table[key].mean())} ± {figure(table[key].std())}" for key in VALIDATION_FIGURES)
        less = pd.Series(table["auroc"].to_numpy() - reference.to_numpy())
        cells = [name, auroc, f"{signed(less.mean())} ± {figure(less.std() / len(less) ** 0.5)}", *others]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@explained("ablate")
def main(arguments: list[str]) -> int:
    """Run from the command line; see `scripts/ablate`."""
    parser = OptionParser(prog="scripts/ablate", description=__doc__, epilog="All other options go to `cancernet fit`.")
    parser.add_argument("output", type=Path, help="folder of all runs and of the table")
    parser.add_argument("--variants", type=Path, default=VARIANTS, help="YAML file of variants; the first is the base")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these variants only")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run a seed (0 1 2)")
    parser.add_argument("--folds", type=int, help="one run a fold of every seed")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="last", help="which checkpoint is evaluated")
    add_options(parser)
    given, options = parser.parse_known_args(arguments)
    engine = choose_engine(given.jobs, given.scheduler)
    output = given.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    variants = read_variants(given.variants)
    names = [variant.name for variant in variants]
    if unknown := set(given.only or ()) - set(names):
        raise InputError(f"--only: no variant {sorted(unknown)}; {given.variants} has {', '.join(names)}")
    chosen = [variant for variant in variants if given.only is None or variant.name in given.only]
    jobs = [list_jobs(variant, output, options, given) for variant in chosen]
    engine([job for several in jobs for job in several])
    runs = {
        variant.title: collect(several).assign(variant=variant.name)
        for variant, several in zip(chosen, jobs, strict=True)
    }
    pd.concat(runs.values()).to_csv(given.output / "ablation.csv", index=False)
    table = warning(jobs[0][0].trial.folder) + tabulate(runs)
    (given.output / "ablation.md").write_text(table, encoding="utf-8")
    print(table, given.output, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
