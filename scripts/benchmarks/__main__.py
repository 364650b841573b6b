"""Measure speed and memory side by side and print tables; `scripts/benchmark --help` lists the sections."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from cancernet.errors import explained
from cancernet.options import OptionParser
from scripts.benchmarks.commands import measure_entries, measure_folder, measure_packing, measure_startup
from scripts.benchmarks.machine import describe_machine, load_average
from scripts.benchmarks.race import Figure, print_table, write_markdown

SECTIONS = {
    "step": "training steps: CancerNet, hand-written torch, Keras on torch, Keras on TensorFlow",
    "inference": "patches a second of the same",
    "networks": "training step and inference of the networks that configs/ holds",
    "epoch": "whole epochs through the Trainer, against the bare step and an ImageFolder pipeline",
    "prepare": "packing a zip and a folder, against a loop over Pillow",
    "entries": "packing a zip of many entries: memory over all processes",
    "folder": "listing and packing a folder of as many files, as Kaggle mounts the archive",
    "memory": "anonymous memory of a short fit on stores of many patches",
    "slides": "from slide to map through OpenSlide, and reading, network and writing alone",
    "startup": "--help, and fit to its first step on a large store",
}
IN_PRECISIONS = ("step", "inference", "networks", "epoch")
"""Sections that measure each precision."""


@explained("benchmark")
def main(arguments: list[str]) -> int:
    """Run the sections that were asked for."""
    options = _parse(arguments)
    console = Console()
    tables: dict[str, list[Figure]] = {}
    machine = describe_machine()
    console.print({key: value for key, value in machine.items() if key != "versions"}, machine["versions"])
    sections = options.sections or list(SECTIONS)
    if options.precisions is None:
        options.precisions = ["fp32", "bf16"]
        if not machine["bf16"] and machine["gpu"] is None and not set(sections).isdisjoint(IN_PRECISIONS):
            options.precisions = ["fp32"]
            console.print(
                "bf16 is left out: this processor has no bf16 instructions; --precisions bf16 measures it all the same"
            )
    with tempfile.TemporaryDirectory(prefix="cancernet-benchmark-") as temporary:
        folder = options.folder or Path(temporary)
        for section in sections:
            console.print(f"[bold]{section}[/bold]: {SECTIONS[section]} (load before: {load_average()})")
            for title, figures in _measurement(section, options, folder)().items():
                tables[title] = figures
                print_table(title, figures, console)
    if options.json is not None:
        rows = {title: [figure.summary() for figure in figures] for title, figures in tables.items()}
        options.json.write_text(json.dumps({"machine": machine, "tables": rows}, indent=1) + "\n", encoding="utf-8")
    if options.markdown is not None:
        options.markdown.write_text("\n".join(map(write_markdown, tables, tables.values())), encoding="utf-8")
    return 0


def _measurement(section: str, options: argparse.Namespace, folder: Path) -> Callable[[], dict[str, list[Figure]]]:
    """Return what measures a section and returns its tables by title."""
    # Sections in torch are imported only when they run: the others need the memory.
    if section in ("step", "inference", "networks"):
        from scripts.benchmarks.step import measure_networks, measure_steps

        if section == "networks":
            return lambda: {
                f"networks, batch {batch}, uncompiled": measure_networks(batch, options.rounds, options.precisions)
                for batch in options.batches
            }
        if options.tensorflow_python is None:
            print("  TensorFlow is left out: give --tensorflow-python, an interpreter that has it")
        task = "train" if section == "step" else "predict"
        tensorflow, jit = options.tensorflow_python, options.tensorflow_jit
        return lambda: measure_steps(task, options.batches, options.rounds, tensorflow, jit, options.precisions)
    if section == "epoch":
        from scripts.benchmarks.epoch import measure_epochs

        return lambda: measure_epochs(folder, options.batches[-1], options.rounds, options.precisions)
    if section == "startup":
        return lambda: {"start-up": measure_startup(folder, options.patches, options.rounds)}
    if section == "memory":
        from scripts.benchmarks.memory import measure_memory

        return lambda: {"memory of fit": measure_memory(folder, options.store_patches, options.batches[0])}
    if section == "slides":
        from scripts.benchmarks.slides import measure_slides
        from scripts.benchmarks.wsinfer import race_wsinfer

        tiles, rounds, wsinfer = options.tiles, options.rounds, options.wsinfer_python
        if wsinfer is None:
            print("  WSInfer is left out: give --wsinfer-python, an interpreter that has it")
            return lambda: measure_slides(folder, tiles, rounds)
        return lambda: measure_slides(folder, tiles, rounds) | race_wsinfer(folder / "wsinfer", tiles, rounds, wsinfer)
    if section == "entries":
        return lambda: {f"prepare, a zip of {options.entries:,} entries": measure_entries(folder, options.entries)}
    if section == "folder":
        return lambda: {f"prepare, a folder of {options.entries:,} files": measure_folder(folder, options.entries)}
    return lambda: measure_packing(folder, options.files, options.rounds, options.workers)


def _parse(arguments: list[str]) -> Any:
    sections = "\n".join(f"  {name:10} {text}" for name, text in SECTIONS.items())
    parser = OptionParser(
        prog="scripts/benchmark",
        description=f"Measure side by side, in turns; medians of the rounds. Sections (default: all):\n{sections}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="see above")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender that count (5)")
    parser.add_argument("--batches", type=int, nargs="+", default=[256], help="batch sizes of the steps (256)")
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=("fp32", "bf16"),
        help="of steps and epochs (both; fp32 alone where neither processor nor GPU computes in bf16)",
    )
    parser.add_argument("--patches", type=int, default=277_524, help="size of the synthetic store (277524)")
    parser.add_argument(
        "--store-patches",
        type=int,
        nargs="+",
        default=[277_524, 2_000_000, 5_300_000],
        help="sizes of the stores for memory (277524 2000000 5300000)",
    )
    parser.add_argument("--files", type=int, default=100_000, help="PNG files for prepare (100000)")
    parser.add_argument("--tiles", type=int, default=20_000, help="tiles of the synthetic slide (20000)")
    parser.add_argument("--entries", type=int, default=555_048, help="entries of the synthetic zip or folder (555048)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes for prepare (1 2)")
    parser.add_argument("--tensorflow-python", metavar="PATH", help="interpreter with tensorflow and keras")
    parser.add_argument("--wsinfer-python", metavar="PATH", help="interpreter with wsinfer (scripts/interop)")
    parser.add_argument("--tensorflow-jit", action="store_true", help="jit_compile=True there; very slow on a CPU")
    parser.add_argument(
        "--folder", type=Path, help="keeps the synthetic data for the next time; a temporary one if not given"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, hardware and versions")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables in Markdown")
    options = parser.parse_args(arguments)
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; sections are {', '.join(SECTIONS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
