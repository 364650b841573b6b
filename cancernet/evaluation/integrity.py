"""Whether a run folder is as it was written: checksums of its files, and figures that follow from its predictions."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd

from cancernet.errors import InputError
from cancernet.evaluation.analysis import Scores, figures
from cancernet.evaluation.metrics import METRICS, RANKS, confusion
from cancernet.evaluation.records import write_record
from cancernet.evaluation.results import Completeness, TestMetrics

ROUNDED = 2e-3
"""Version 0.1.0 took ranks from a sigmoid in single precision: its average precision is off by up to 7e-4."""
EXACT = 1e-6
"""Between machines the last digits of a logarithm differ."""


def write_sealed(path: Path, record: Completeness, files: Sequence[str]) -> None:
    """Write a record with the checksums of the files next to it that it belongs to, and of its own entries."""
    others = _checksums(path.with_name(name) for name in files)
    write_record(path, record.model_copy(update={"sha256": others}))
    write_record(path, record.model_copy(update={"sha256": others | _checksums([path])}))


def _checksums(paths: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of files by name; of a record, that of its entries without its own checksum."""
    found = {}
    for path in paths:
        content = path.read_bytes()
        if path.suffix == ".json":
            entries = json.loads(content)
            others = {name: value for name, value in entries["sha256"].items() if name != path.name}
            content = json.dumps(entries | {"sha256": others}, sort_keys=True).encode()
        found[path.name] = hashlib.sha256(content).hexdigest()
    return found


def check_files(folder: Path, recorded: Mapping[str, str] | None, again: str) -> None:
    """Refuse a folder with a file that is not the one that was written; one that is gone is no fault here.

    Args:
        folder: The run folder.
        recorded: Name -> checksum; None in folders of version 0.1.0.
        again: How to get a valid one, for the message.

    Raises:
        InputError: Names the file.
    """
    present = [folder / name for name in recorded or {} if (folder / name).is_file()]
    try:
        found = _checksums(present)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); {again}") from error
    for name, checksum in found.items():
        if recorded and checksum != recorded[name]:
            raise InputError(f"{folder / name}: was changed after it was written (its checksum differs); {again}")


def refuse_part(folder: Path, results: Completeness, again: str) -> None:
    """Refuse results of a part of the patches where the whole is needed.

    Raises:
        InputError: Says of how many they are.
    """
    if results.part_of is not None:
        raise InputError(f"{folder}: its results are of {results.part_of} only; {again} without limiting the batches")


def check_figures(path: Path, metrics: TestMetrics, tested: pd.DataFrame, again: str) -> None:
    """Refuse metrics that do not follow from the predictions next to them: a page of both would mislead.

    Args:
        path: Of `metrics.json`, for the message.
        metrics: Its content.
        tested: The predictions of the test part.
        again: How to get a valid one, likewise.

    Raises:
        InputError: There are none, or the first entry that says something else.
    """
    if tested.empty:
        raise InputError(f"{path.parent}: predictions hold no patch of the test part; {again}")
    if odd := {row.case for row in metrics.per_case} ^ set(tested["case"]):
        raise InputError(f"{path} and the predictions do not share the case {min(odd)}; {again}")
    for name, said, follows in _counts(metrics, tested):
        if said != follows:
            raise _contradiction(path, name, said, follows, again)
    # Version 0.1.0 kept no checksums and took ranks from a sigmoid in single precision.
    names, tolerance = (RANKS, ROUNDED) if metrics.sha256 is None else (METRICS, EXACT)
    found = figures(Scores.of(tested))
    for name in names:
        said, follows = getattr(metrics, name), getattr(found, name)
        if not _agree(said, follows, tolerance):
            raise _contradiction(path, name, said, follows, again)
        estimate = getattr(metrics.intervals.at_threshold, name).estimate
        if not _agree(estimate, follows, tolerance):
            raise _contradiction(path, f"intervals.at_threshold.{name}.estimate", estimate, follows, again)


def _counts(metrics: TestMetrics, tested: pd.DataFrame) -> Iterator[tuple[str, object, object]]:
    """Yield the name of each count, what it is said to be and what it is."""
    for values in (metrics, metrics.at_validation_threshold):
        if values is not None and values.threshold is not None:
            matrix = confusion(tested["label"], tested["probability"].astype(float), values.threshold).matrix
            yield f"confusion_matrix at {values.threshold:g}", values.confusion_matrix, matrix
    yield "patches", metrics.patches, len(tested)
    yield "cases", metrics.cases, tested["case"].nunique()


def _agree(said: float | None, follows: float | None, tolerance: float) -> bool:
    if said is None or follows is None:
        return said is follows
    return math.isclose(said, follows, rel_tol=tolerance, abs_tol=tolerance)


def _contradiction(path: Path, name: str, said: object, follows: object, again: str) -> InputError:
    return InputError(f"{path} says {name} {said} and the predictions say {follows}: one of them was changed; {again}")
