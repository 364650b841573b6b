"""Which cases the context correction may be fitted on, and which may be scored."""

from collections.abc import Collection, Iterable
from pathlib import Path

import pandas as pd

from cancernet.errors import InputError, listing
from cancernet.evaluation.run_folder import read_split

Parts = dict[str, frozenset[str]]
"""By case, the parts that its patches stand in."""
REFUSED_TO_FIT = {
    "train": "trained the network, which is too sure of its patches",
    "test": "stands in the test part, which chooses nothing",
}
REFUSED_TO_SCORE = {
    "train": "trained the network, which is too sure of its patches",
    "validation": "stands in the validation part, which chose epoch, threshold and temperature",
}
"""Parts, and why a case in them is refused."""


def parts_of_cases(predictions: pd.DataFrame, folder: Path) -> Parts:
    """Collect the parts of each case, by its predictions and by the split that the run was trained with.

    The two differ where the predictions were made under another split.

    Args:
        predictions: Columns `case` and `part`.
        folder: Where they lie: a run folder or one in it.
    """
    parts = {str(case): set(names) for case, names in predictions.groupby("case")["part"].unique().items()}
    trained = read_split(folder)
    if trained is not None:
        trained = trained[trained["part"].isin(("train", "validation", "test")) & trained["case"].isin(parts)]
        for case, part in trained[["case", "part"]].drop_duplicates().itertuples(index=False):
            parts[case].add(part)
    return {case: frozenset(names) for case, names in parts.items()}


def choose_cases(
    parts: Parts, fit_on: Collection[str] | None = None, score: Collection[str] | None = None
) -> tuple[list[str], list[str]]:
    """Choose the cases to fit on and those to score.

    Args:
        parts: See `parts_of_cases`.
        fit_on: Cases named to fit on; all of the validation part where none are.
        score: Cases named to score; where none are, those of the test part and outside the split that nothing is
            fitted on.

    Returns:
        Both lists, sorted; no case stands in both, none trained the network, and nothing is fitted on the test part.

    Raises:
        InputError: A named case breaks these rules or is not there, or there is none to fit on or to score.
    """
    validation = {case for case, names in parts.items() if names == {"validation"}}
    fitted = sorted(validation) if fit_on is None else _named("--fit_on", fit_on, parts, REFUSED_TO_FIT)
    if not fitted:
        raise InputError(
            "context: no validation case in these predictions (`cancernet test` writes none); run `cancernet predict` "
            "and give its folder, or name cases outside the split with --fit_on"
        )
    unseen = {case for case, names in parts.items() if names.isdisjoint(REFUSED_TO_SCORE)}
    scored = sorted(unseen - {*fitted}) if score is None else _named("--score", score, parts, REFUSED_TO_SCORE)
    if not scored:
        raise InputError(
            "context: no case of the test part or outside the split is left to score in these predictions; predict "
            "data that holds some, or fit on fewer"
        )
    both = sorted(set(fitted) & set(scored))
    if both:
        raise InputError(f"context: {listing(both)} would be scored by what was fitted on it; name other cases")
    return fitted, scored


def _named(option: str, names: Iterable[str], parts: Parts, refused: dict[str, str]) -> list[str]:
    for case in names:
        if case not in parts:
            raise InputError(f"{option}: no case {case!r} in these predictions; there are {listing(sorted(parts))}")
        for part, reason in refused.items():
            if part in parts[case]:
                raise InputError(f"{option}: case {case} {reason}; name other cases, or leave it out")
    return sorted(set(names))
