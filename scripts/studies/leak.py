"""Measure what a split by patch hides: one recipe, one data set, split by patch and by case."""

import sys
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cancernet.errors import explained
from cancernet.options import OptionParser
from scripts.studies.repeat import repeat, summarise
from scripts.studies.trials import plan, warning

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "original.yaml"
"""The recipe of the tutorial whose split leaks."""
SPLITS = ("patch", "case")


def measure(archive: str, output: Path, seeds: list[int], options: list[str]) -> pd.DataFrame:
    """Run the recipe under both splits and write `leak.csv`, `leak.md` and `leak.png`.

    Args:
        archive: Root of the data.
        output: Folder of runs and results; finished runs in it are kept.
        seeds: One run a seed and split.
        options: Further options of `cancernet fit`.

    Returns:
        One row a run: `split`, `seed` and the figures of the test part.
    """
    arguments = [f"--config={CONFIG}", f"--data.root={archive}", *options]
    trials = {split: plan(output / split, seeds) for split in SPLITS}
    runs = [
        repeat(several, [*arguments, f"--data.split={split}"]).assign(split=split) for split, several in trials.items()
    ]
    table = pd.concat(runs, ignore_index=True)
    table.to_csv(output / "leak.csv", index=False)
    (output / "leak.md").write_text(warning(trials["case"][0].folder) + write_table(table), encoding="utf-8")
    draw(table, len(seeds)).savefig(output / "leak.png")
    return table


def write_table(runs: pd.DataFrame) -> str:
    """Return mean and standard deviation by split, and their difference, as a Markdown table."""
    by_split = {split: summarise(runs[runs["split"] == split].drop(columns="split")) for split in SPLITS}
    lines = ["| figure | by patch (leaks) | by case | difference |", "|---|---|---|---|"]
    for figure in by_split["case"].index:
        cells = [
            f"{by_split[split].loc[figure, 'mean']:.3f} ± {by_split[split].loc[figure, 'sd']:.3f}" for split in SPLITS
        ]
        difference = by_split["patch"].loc[figure, "mean"] - by_split["case"].loc[figure, "mean"]
        lines.append(f"| {figure.replace('_', ' ')} | {cells[0]} | {cells[1]} | {difference:+.3f} |")
    return "\n".join(lines) + "\n"


def draw(runs: pd.DataFrame, seeds: int) -> Figure:
    """Draw AUROC of each run, by split."""
    figure = Figure(figsize=(4.6, 3.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, split in enumerate(SPLITS):
        scores = runs.loc[runs["split"] == split, "auroc"]
        axes.plot([place] * len(scores), scores, "o", alpha=0.6)
        axes.hlines(scores.mean(), place - 0.2, place + 0.2)
    axes.set_xticks(range(len(SPLITS)), [f"split by {split}" for split in SPLITS])
    axes.set(xlim=(-0.5, len(SPLITS) - 0.5), ylabel="AUROC on the test part", title=f"One recipe, {seeds} seeds")
    return figure


@explained("measure_leak")
def main(arguments: list[str]) -> int:
    """Run from the command line; see `scripts/measure_leak`."""
    parser = OptionParser(prog="scripts/measure_leak", description=__doc__)
    parser.add_argument("archive", help="root of the data, as --data.root takes it")
    parser.add_argument(
        "--output", type=Path, default=Path("lightning_logs") / "leak", help="folder of runs and results"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run a seed and split")
    given, options = parser.parse_known_args(arguments)
    given.output.mkdir(parents=True, exist_ok=True)
    measure(given.archive, given.output, given.seeds, options)
    print((given.output / "leak.md").read_text(encoding="utf-8"))
    print(given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
