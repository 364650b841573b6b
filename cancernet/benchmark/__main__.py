"""Measure sections side by side and report them; see `--help`."""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from cancernet.benchmark.machine import describe_machine
from cancernet.benchmark.rounds import Figure
from cancernet.benchmark.table import markdown, print_table

SECTIONS = {
    "step": "training steps: ours, hand-written torch, Keras on torch, Keras on TensorFlow",
    "inference": "patches a second of the same",
    "networks": "training step and inference of the networks that configs/ holds",
    "epoch": "whole epochs through the Trainer, against the bare step and an ImageFolder pipeline",
    "prepare": "packing a zip and a folder, against a loop over Pillow",
    "entries": "packing a zip of many entries: memory over all processes",
    "startup": "--help, and fit to its first step on a large store",
}


def main() -> None:
    """Run the sections that were asked for."""
    options = _parse()
    console = Console()
    tables: dict[str, list[Figure]] = {}
    machine = describe_machine()
    console.print({key: value for key, value in machine.items() if key != "versions"}, machine["versions"])
    with tempfile.TemporaryDirectory(prefix="cancernet-benchmark-") as passing:
        folder = options.folder or Path(passing)
        for section in options.sections or SECTIONS:
            load = describe_machine()["load_average"]
            console.print(f"[bold]{section}[/bold]: {SECTIONS[section]} (load before: {load})")
            for title, figures in _measure(section, options, folder).items():
                tables[title] = figures
                print_table(title, figures, console)
    if options.json is not None:
        rows = {title: [figure.row() for figure in figures] for title, figures in tables.items()}
        options.json.write_text(json.dumps({"machine": machine, "tables": rows}, indent=1) + "\n", encoding="utf-8")
    if options.markdown is not None:
        options.markdown.write_text("\n".join(map(markdown, tables, tables.values())), encoding="utf-8")


def _measure(section: str, options: argparse.Namespace, folder: Path) -> dict[str, list[Figure]]:
    # Imported late: the workers must have the machine, and its memory, to themselves.
    if section in ("step", "inference"):
        from cancernet.benchmark.step import measure_steps

        if options.tensorflow_python is None:
            print("  TensorFlow is left out: give --tensorflow-python, an interpreter that has it")
        task = "train" if section == "step" else "predict"
        tensorflow, jit = options.tensorflow_python, options.tensorflow_jit
        return measure_steps(task, options.batches, options.rounds, tensorflow, jit, options.precisions)
    if section == "networks":
        from cancernet.benchmark.step import measure_networks

        return {
            f"networks, batch {batch}, uncompiled": measure_networks(batch, options.rounds, options.precisions)
            for batch in options.batches
        }
    if section == "epoch":
        from cancernet.benchmark.epoch import measure_epochs

        return measure_epochs(folder, options.batches[-1], options.rounds)
    if section == "startup":
        from cancernet.benchmark.startup import measure_startup

        return {"start-up": measure_startup(folder, options.patches, options.rounds)}
    from cancernet.benchmark.packing import measure_entries, measure_packing

    if section == "entries":
        return {f"prepare, a zip of {options.entries:,} entries": measure_entries(folder, options.entries)}
    return measure_packing(folder, options.files, options.rounds, options.workers)


def _parse() -> Any:
    listed = "\n".join(f"  {name:10} {text}" for name, text in SECTIONS.items())
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark",
        description=f"Measure side by side, in turns; medians of the rounds. Sections (default: all):\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help="see above")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender that count (5)")
    parser.add_argument("--batches", type=int, nargs="+", default=[256], help="batch sizes of the steps (256)")
    parser.add_argument(
        "--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"], help="of the steps (both)"
    )
    parser.add_argument("--patches", type=int, default=277_524, help="size of the drawn store (277524)")
    parser.add_argument("--files", type=int, default=100_000, help="PNG files for prepare (100000)")
    parser.add_argument("--entries", type=int, default=555_048, help="entries of the drawn zip (555048)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes for prepare (1 2)")
    parser.add_argument("--tensorflow-python", metavar="PATH", help="interpreter with tensorflow and keras")
    parser.add_argument("--tensorflow-jit", action="store_true", help="jit_compile=True there; very slow on a CPU")
    parser.add_argument(
        "--folder", type=Path, help="keeps the drawn data, for the next time; a passing one if not given"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures, hardware and versions")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables in Markdown")
    options = parser.parse_args()
    unknown = set(options.sections) - set(SECTIONS)
    if unknown:
        parser.error(f"no section {', '.join(sorted(unknown))}; sections are {', '.join(SECTIONS)}")
    return options


if __name__ == "__main__":
    main()
