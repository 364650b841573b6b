"""What each ingredient of a recipe is worth: variants of one configuration, judged on the validation part only."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from cancernet.studies.repetition import VALIDATION_FIGURES, Trial, plan, repeat

from cancernet.errors import InputError, explained
from cancernet.evaluation.report.formatting import figure, signed

VARIANTS = Path(__file__).with_name("ablation.yaml")


def read_variants(file: Path) -> dict[str, dict[str, Any]]:
    """Read a study: name of a variant -> what it changes in the configuration, as `fit --config` takes it.

    Raises:
        InputError: Not such a file.
    """
    try:
        variants = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{file}: cannot be read as YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(variants, dict) or not all(isinstance(change, dict) for change in variants.values()):
        raise InputError(f"{file}: expected the name of each variant, and below it what it changes, as in {VARIANTS}")
    return variants


def run_variant(
    trials: Sequence[Trial], change: dict[str, Any], arguments: Sequence[str], checkpoint: str
) -> pd.DataFrame:
    """Train one variant once a trial and return its figures of the validation part, one row a trial."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "variant.yaml"
        file.write_text(yaml.safe_dump(change), encoding="utf-8")
        return repeat(trials, [*arguments, f"--config={file}"], "validation", checkpoint)


def tabulate(runs: dict[str, pd.DataFrame]) -> str:
    """Return the figures of each variant as a Markdown table.

    Means and standard deviations over its runs; its AUROC less the first variant's of the same seed and fold, as the
    mean over these pairs and its standard error.
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
def console(arguments: list[str] | None = None) -> int:
    """Run from the command line; see `scripts/ablate`."""
    parser = argparse.ArgumentParser(
        prog="scripts/ablate", description=__doc__, epilog="Everything else is handed on to `cancernet fit`."
    )
    parser.add_argument("output", type=Path, help="folder of all runs and of the table")
    parser.add_argument("--variants", type=Path, default=VARIANTS, help="YAML file of variants; the first is the base")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these variants only")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run a seed (0 1 2)")
    parser.add_argument("--folds", type=int, help="one run a fold of every seed")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="last", help="which checkpoint is judged")
    given, options = parser.parse_known_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    variants = read_variants(given.variants)
    if unknown := set(given.only or ()) - set(variants):
        raise InputError(f"--only: no variant {sorted(unknown)}; {given.variants} has {', '.join(variants)}")
    runs = {
        name: run_variant(
            plan(given.output / name.replace(" ", "-"), given.seeds, given.folds), change, options, given.checkpoint
        )
        for name, change in variants.items()
        if given.only is None or name in given.only
    }
    pd.concat([table.assign(variant=name) for name, table in runs.items()]).to_csv(
        given.output / "ablation.csv", index=False
    )
    table = tabulate(runs)
    (given.output / "ablation.md").write_text(table, encoding="utf-8")
    print(table, given.output, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(console())
