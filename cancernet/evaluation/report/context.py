"""The section on the slide's context: what `cancernet context` left in a run folder, apart from patch-wise figures."""

from typing import Any

import pandas as pd

from cancernet.evaluation.context_files import read_context_table, read_contexts
from cancernet.evaluation.grid import lay_out
from cancernet.evaluation.report import maps
from cancernet.evaluation.report.pooling import Subject
from cancernet.evaluation.results import ContextResult

CROWDED = 0.5
"""Share of its neighbourhood that the median patch of a case must have for the case to be worth a map."""
MOST_MAPS = 12
"""Cases with maps, the largest ones: three pictures of about 1 kB each."""


def context_sections(subject: Subject) -> list[dict[str, Any]]:
    """Words, table and maps of each context file in the run folder, or in a `predict-...` folder there.

    Files on other data or of another checkpoint than the page's are passed over; pooled folds have no such section.

    Raises:
        InputError: A file is broken.
    """
    if len(subject.runs) > 1:
        return []
    folder, origin = subject.runs[0].folder, subject.metrics.origin
    sections = []
    for path, result in read_contexts(folder):
        if result.origin == origin:
            name = path.relative_to(folder).with_suffix("").as_posix()
            sections.append({"name": name, "result": result, "maps": _case_maps(read_context_table(path), result)})
    return sections


def _case_maps(table: pd.DataFrame, result: ContextResult) -> list[dict[str, Any]]:
    """Maps of the largest cases whose patches have many neighbours: labels and both probabilities."""
    enough = CROWDED * (result.neighbourhood**2 - 1)
    groups = {name: group for name, group in table.groupby("case") if group["neighbours"].median() >= enough}
    shown = []
    for name in sorted(groups, key=lambda name: (-len(groups[name]), name))[:MOST_MAPS]:
        x, y, label, plain, context = (
            groups[name][column].to_numpy() for column in ("x", "y", "label", "probability", "context_probability")
        )
        grid = lay_out(x, y)
        if grid is not None:
            pictures = {
                "expert's labels": maps.label_map(grid, label),
                "patch-wise probability": maps.probability_map(grid, plain),
                "probability with context": maps.probability_map(grid, context),
            }
            shown.append({"case": name, "grid": grid, "pictures": pictures})
    return shown
