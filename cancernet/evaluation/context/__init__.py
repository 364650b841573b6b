"""The context stage: correct each patch by its neighbours on the slide, reported next to the patch-wise result."""

import hashlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cancernet.errors import InputError
from cancernet.evaluation.context.cases import choose_cases, parts_of_cases
from cancernet.evaluation.context.evaluation import evaluate_context
from cancernet.evaluation.context_files import write_context
from cancernet.evaluation.report.formatting import NAMES, cell, threshold
from cancernet.evaluation.results import SYNTHETIC_WARNING, ContextResult
from cancernet.evaluation.run_folder import read_whole
from cancernet.pretrained import INCLUDED, RESULTS, is_included

__all__ = ["context"]


def context(
    run_dir: Path, neighbourhood: Literal[3, 5] = 3, fit_on: str | None = None, score: str | None = None
) -> None:
    """Correct each patch by its neighbours on the slide, and evaluate that next to the patch-wise result.

    Args:
        run_dir: A run folder, or one of its `predict-...` and `test-...` folders, or the name of the included model,
            for what it last predicted below `lightning_logs`; `context.csv` and `context.json` are written there, named
            after the cases where cases are named.
        neighbourhood: Patches along a side of the neighbourhood, with the patch in its middle: 3 or 5.
        fit_on: Cases to fit on, joined by commas: validation cases or ones outside the split; all of the validation
            part where not given.
        score: Cases to score, joined by commas: test cases or ones outside the split; all of these that nothing is
            fitted on where not given.
    """
    folder = _newest_of_included() if is_included(run_dir) else run_dir
    predictions, origin = read_whole(folder)
    if origin.leaks:
        raise InputError(f"{folder}: its patches were split one by one, so every case trained; split by case")
    # The very image of a patch that was left out is in training: it is neither scored nor a neighbour.
    predictions = predictions[predictions["part"] != "left_out"]
    named = [_cases(option, text) for option, text in (("--fit_on", fit_on), ("--score", score))]
    fitted, scored = choose_cases(parts_of_cases(predictions, folder), *named)
    patches, result = evaluate_context(predictions, origin, fitted, scored, neighbourhood)
    _print(result)
    print(*write_context(folder, _stem(neighbourhood, *named), result, patches), sep="\n")


def _newest_of_included() -> Path:
    found = list(RESULTS.glob("predict-*"))
    if not found:
        raise InputError(f"{INCLUDED}: predicted nothing here; run `cancernet predict --ckpt_path {INCLUDED}` first")
    return max(found, key=lambda folder: folder.stat().st_mtime)


def _cases(option: str, text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"{option}: names no case, got {text!r}; give case names joined by commas, or leave it out")
    return names


def _stem(neighbourhood: int, fit_on: Collection[str] | None, score: Collection[str] | None) -> str:
    """Name the files after what was asked for, so that one fit does not overwrite another."""
    stem = "context" if neighbourhood == 3 else f"context-{neighbourhood}x{neighbourhood}"
    for verb, names in (("fitted", fit_on), ("scored", score)):
        if names is not None:
            text = "+".join(sorted(set(names)))
            if len(text) > 40 or not all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names):
                text = f"{len(names)}-cases-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
            stem += f"-{verb}-{text}"
    return stem


def _print(result: ContextResult) -> None:
    console = Console()
    console.print()
    if result.origin.synthetic:
        console.print(Text(SYNTHETIC_WARNING))
    for words in result.words:
        console.print(Text(words))
    table = Table()
    for name in ("metric", "patch-wise", "with context", "difference"):
        table.add_column(name, justify="left" if name == "metric" else "right")
    for name, difference in result.difference:
        patch_wise, with_context = getattr(result.patch_wise, name), getattr(result.context, name)
        table.add_row(NAMES[name], cell(patch_wise), cell(with_context), cell(difference))
    table.add_row("threshold", *[threshold(result.threshold)] * 2, "")
    console.print(table, "Intervals: bootstrap over whole cases, the same draws for both.")
