"""Splits by name: which patch trains the model, chooses its epoch, or judges it.

A split gives each patch of a store one part; `make_split` joins the rules of `assignment` with the checks that every
run passes.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from cancernet.data.assignment import (
    LEFT_OUT,
    PARTS,
    patch_keys,
    read_split,
    split_cases,
    split_patches,
    split_published,
)
from cancernet.errors import InputError

PROTOCOLS = ("case", "patch", "official", "extended")
FOLDED = ("case", "official", "extended")
"""Those that know folds."""


@dataclass(frozen=True)
class Split:
    """Which part each patch of a store belongs to.

    Attributes:
        protocol: `case`, `patch`, `official`, `extended`, or the name of the file it was read from.
        part: (N,) object array of part names, in the order of the store's index.
        unit: `case` where whole cases were assigned, `patch` where single patches were.
        left_out: One row for each patch left out because an earlier part holds the same image: `path`, `case`, `part`
            (the one it would have been in), `same_as` (path of the copy that stays), `kept_in`.
        absent: Cases that the protocol lists and the archive lacks.
        settings: What else determined it (`seed`, `folds`, `fold`).
    """

    protocol: str
    part: np.ndarray
    unit: str
    left_out: pd.DataFrame
    absent: tuple[str, ...] = ()
    settings: dict[str, int | None] = field(default_factory=dict)

    def rows(self, part: str) -> np.ndarray:
        """Return the store rows of one part, ascending, int64."""
        return np.flatnonzero(self.part == part)

    def table(self, index: pd.DataFrame) -> pd.DataFrame:
        """Return the split as a table: a row a case, or a row a patch where patches were assigned."""
        frame = index.assign(part=self.part)
        if self.unit == "patch":
            return frame[["path", "case", "x", "y", "label", "part"]]
        frame = frame[frame["part"] != LEFT_OUT]
        rows = frame.groupby(["case", "part"], sort=False)["label"].agg(patches="size", idc="sum").reset_index()
        return rows.assign(prevalence=(rows["idc"] / rows["patches"]).round(4))


def make_split(
    index: pd.DataFrame,
    protocol: str = "case",
    seed: int = 0,
    folds: int | None = None,
    fold: int | None = None,
) -> Split:
    """Assign each patch of a store to a part, and check that nothing leaks.

    Args:
        index: The store's index table (columns `path`, `case`, `x`, `y`, `label`, `hash`).
        protocol: One of `PROTOCOLS`, or the path of a CSV file with the columns `part` and `case` or `path`.
        seed: Orders cases (or patches) within their stratum; files, and the published lists without folds, have no use
            for it.
        folds: Number of cross-validation folds; with `case` and the published lists.
        fold: Which fold is the test part, from 0 to `folds - 1`; under a published list, whose test part is fixed, it
            is the validation part.

    Raises:
        InputError: An unknown protocol or file, folds out of range, or too few cases.
    """
    _check_folds(protocol, folds, fold)
    absent: tuple[str, ...] = ()
    unit = "case"
    if protocol == "case":
        part = split_cases(index, seed, folds, fold)
    elif protocol == "patch":
        part, unit = split_patches(index, seed), "patch"
    elif protocol in ("official", "extended"):
        part, absent = split_published(index, protocol == "extended", seed, folds, fold)
    elif Path(protocol).is_file():
        part, unit = read_split(Path(protocol), index)
        protocol = Path(protocol).name
    else:
        raise InputError(
            f"data.split: unknown split {protocol!r}; use one of {', '.join(PROTOCOLS)}, or the path of a CSV file "
            "with the columns case (or path) and part"
        )
    part, left_out = leave_out_shared_images(index, part)
    check_disjoint(index, part, unit)
    return Split(protocol, part, unit, left_out, absent, {"seed": seed, "folds": folds, "fold": fold})


def leave_out_shared_images(index: pd.DataFrame, part: np.ndarray) -> tuple[np.ndarray, pd.DataFrame]:
    """Take out of each part the patches whose very image stands in an earlier one (blank ones, mostly).

    Returns:
        The parts with `left_out` in these places, and the table of what was left out (see `Split.left_out`).
    """
    rank = pd.Series(part).map({name: number for number, name in enumerate(PARTS)})
    frame = pd.DataFrame({"hash": index["hash"].to_numpy(), "rank": rank, "row": np.arange(len(index))}).dropna()
    frame = frame.sort_values(["rank", "row"])
    frame = frame.merge(frame.drop_duplicates("hash"), on="hash", suffixes=("", "_kept"))
    later = frame[frame["rank"] > frame["rank_kept"]]
    rows, kept = later["row"].to_numpy(dtype=int), later["row_kept"].to_numpy(dtype=int)
    paths = index["path"].to_numpy()
    left_out = pd.DataFrame(
        {
            "path": paths[rows],
            "case": index["case"].to_numpy()[rows],
            "part": part[rows],
            "same_as": paths[kept],
            "kept_in": part[kept],
        }
    )
    part = part.copy()
    part[rows] = LEFT_OUT
    return part, left_out


def check_disjoint(index: pd.DataFrame, part: np.ndarray, unit: str) -> None:
    """Raise where a case (with unit `patch`: a patch) or an image stands in two parts.

    The rules of `assignment` cannot produce that; this is the proof of it that every run carries out.

    Raises:
        InputError: Names the first case, patch or image found in two parts.
    """
    used = np.isin(part, PARTS)
    identity = index["case"].to_numpy() if unit == "case" else patch_keys(index)
    for name, values in ((unit, identity), ("image", index["hash"].to_numpy())):
        pairs = pd.DataFrame({"key": values[used], "part": part[used]}).drop_duplicates()
        twice = pairs[pairs["key"].duplicated()]
        if len(twice):
            raise InputError(f"split: {name} {twice['key'].iloc[0]} stands in two parts; give it one")


def check_parts(index: pd.DataFrame, split: Split, needed: tuple[str, ...]) -> None:
    """Raise where a needed part is empty or holds one class only.

    Raises:
        InputError: Says which part, what it holds, and what to do.
    """
    advice = {
        "case": "add cases, or use another --data.seed",
        "patch": "add patches, or use another --data.seed",
        "official": "use --data.split case, which needs no published case",
        "extended": "use --data.split case, which needs no published case",
    }.get(split.protocol, "name other cases for it in the file")
    for part in needed:
        labels = index["label"].to_numpy()[split.rows(part)]
        if len(labels) == 0:
            raise InputError(f"split {split.protocol}: its {part} part is empty; {advice}")
        if labels.min() == labels.max():
            only = "IDC" if labels[0] else "benign"
            raise InputError(f"split {split.protocol}: its {part} part holds {only} patches only; {advice}")


def _check_folds(protocol: str, folds: int | None, fold: int | None) -> None:
    if (folds is None) != (fold is None):
        raise InputError(f"data.folds and data.fold go together, got folds={folds} and fold={fold}")
    if folds is None or fold is None:
        return
    if protocol not in FOLDED:
        raise InputError(f"data.folds: cross-validation goes with --data.split {', '.join(FOLDED)}; got {protocol!r}")
    if folds < 2 or not 0 <= fold < folds:
        raise InputError(f"data.fold: expected 2 folds or more and 0 <= fold < folds, got folds={folds}, fold={fold}")
