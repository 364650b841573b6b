"""Split a store into parts: the patches that train the model, choose its epoch, or test it.

`make_split` applies the rules of `split_rules` by name and checks that nothing leaks.
"""

import sys
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cancernet.data.archive.layout import UNKNOWN_CASE
from cancernet.data.split_files import find_split_file
from cancernet.data.split_rules import (
    LEFT_OUT,
    OUTSIDE,
    PARTS,
    hash_keys,
    iterate_keys,
    read_split,
    split_cases,
    split_patches,
    split_published,
)
from cancernet.errors import InputError, listing

FOLDED = ("case", "official", "extended")
"""Splits that have folds."""


@dataclass(frozen=True)
class Split:
    """The part of each patch of a store.

    Attributes:
        name: `case`, `patch`, `official`, `extended`, or the name of the file that the split was read from.
        part: (N,) object array of part names, in the order of the store's index.
        unit: `case` where whole cases were assigned, `patch` where single patches were.
        left_out: A row for each patch left out because an earlier part holds the same image: `path`, `case`, `part`
            (the one it would be in), `same_as` (path of the copy that stays), `kept_in` (its part).
        absent: Cases that the published lists name and the archive lacks.
        settings: The other arguments of `make_split` (`seed`, `folds`, `fold`).
    """

    name: str
    part: np.ndarray
    unit: str
    left_out: pd.DataFrame
    absent: tuple[str, ...] = ()
    settings: dict[str, int | None] = field(default_factory=dict)

    def rows(self, part: str) -> np.ndarray:
        """Return the store rows of one part, ascending, int64."""
        return np.flatnonzero(self.part == part)

    def describe(self, data: str, parts: tuple[str, ...]) -> list[str]:
        """Say in lines what the split makes of data of this name."""
        counts = ", ".join(f"{part} {len(self.rows(part)):,}" for part in parts)
        lines = [f"Split {self.name} of {data}, patches: {counts}"]
        if self.absent:
            lines.append(f"{len(self.absent)} listed cases are not in the data: {listing(self.absent)}")
        if len(self.left_out):
            lines.append(f"{len(self.left_out)} patches left out: an earlier part holds the same image")
        return lines

    def table(self, index: pd.DataFrame) -> pd.DataFrame:
        """Return the split as a table: a row a case, or a row a patch where single patches were assigned."""
        if self.unit == "patch":
            return index[["path", "case", "x", "y", "label"]].assign(part=self.part)
        pair, cases, parts = _number_pairs(index, self.part)
        total = np.bincount(pair)
        idc = np.bincount(pair[index["label"].to_numpy() == 1], minlength=len(total))
        found = np.flatnonzero(total)
        table = pd.DataFrame({"case": cases[found], "part": parts[found], "patches": total[found], "idc": idc[found]})
        table = table[table["part"] != LEFT_OUT].reset_index(drop=True)
        return table.assign(prevalence=(table["idc"] / table["patches"]).round(4))


def make_split(
    index: pd.DataFrame,
    name: str = "case",
    seed: int = 0,
    folds: int | None = None,
    fold: int | None = None,
) -> Split:
    """Assign each patch of a store to a part, and check that nothing leaks.

    Args:
        index: The store's index table (columns `path`, `case`, `x`, `y`, `label`, `hash`).
        name: One of `split_files.SPLITS`, or the path of a CSV file with the columns `part` and `case` or `path`.
        seed: Orders cases (or patches) within their stratum; unused by files and by the published lists without folds.
        folds: Number of cross-validation folds, for `case` and the published lists.
        fold: Which fold is the test part, from 0 to `folds - 1`; under a published list, whose test part is fixed, it
            is the validation part.

    Raises:
        InputError: The split or file is unknown, the folds are out of range, or there are too few cases.

    Examples:
        >>> index = pd.DataFrame({"case": ["8863", "8864", "8865", "8867"], "path": list("abcd"), "hash": range(4)})
        >>> split = make_split(index, "extended")
        >>> split.part.tolist(), split.rows("train").tolist(), len(split.absent)
        (['train', 'test', 'train', 'validation'], [0, 2], 159)
    """
    _check_folds(name, folds, fold)
    absent: tuple[str, ...] = ()
    unit = "case"
    file = find_split_file(name)
    if file is not None:
        part, unit = read_split(file, index)
        name = file.name
    elif name == "case":
        part = split_cases(index, seed, folds, fold)
    elif name == "patch":
        part, unit = split_patches(index, seed), "patch"
    else:
        part, absent = split_published(index, name == "extended", seed, folds, fold)
    part, left_out = leave_out_shared_images(index, part)
    check_disjoint(index, part, unit)
    return Split(name, part, unit, left_out, absent, {"seed": seed, "folds": folds, "fold": fold})


def leave_out_shared_images(index: pd.DataFrame, part: np.ndarray) -> tuple[np.ndarray, pd.DataFrame]:
    """Take out of each part the patches whose image is in an earlier part (blank ones, mostly).

    Returns:
        The parts with `left_out` in these places, and the table of what was left out (see `Split.left_out`).
    """
    hashes = index["hash"].to_numpy()
    rows = _repeated_rows(hashes)
    rank = pd.Series(part[rows]).map({name: number for number, name in enumerate(PARTS)})
    frame = pd.DataFrame({"hash": hashes[rows], "rank": rank, "row": rows}).dropna()
    frame = frame.sort_values(["rank", "row"])
    frame = frame.merge(frame.drop_duplicates("hash"), on="hash", suffixes=("", "_kept"))
    later = frame[frame["rank"] > frame["rank_kept"]]
    rows, kept = later["row"].to_numpy(dtype=int), later["row_kept"].to_numpy(dtype=int)
    left_out = pd.DataFrame(
        {
            "path": index["path"].iloc[rows].to_numpy(),
            "case": index["case"].iloc[rows].to_numpy(),
            "part": part[rows],
            "same_as": index["path"].iloc[kept].to_numpy(),
            "kept_in": part[kept],
        }
    )
    part = part.copy()
    part[rows] = LEFT_OUT
    return part, left_out


def split_for(stage: str, index: pd.DataFrame, name: str, seed: int, folds: int | None, fold: int | None) -> Split:
    """Make the split that a stage of the Trainer needs; a prediction needs none where none can be made.

    Args:
        stage: `fit`, `validate`, `test` or `predict`.
        index: See `make_split`, as the other arguments.
        name: Likewise.
        seed: Likewise.
        folds: Likewise.
        fold: Likewise.

    Raises:
        InputError: As `make_split` raises it, and where class or case of a patch are not known.
    """
    if stage != "predict":
        _require_known(index, name, stage)
        return make_split(index, name, seed, folds, fold)
    cases = index["case"].unique()
    if (index["label"] >= 0).all() and UNKNOWN_CASE not in cases and len(cases) >= 3:
        try:
            return make_split(index, name, seed, folds, fold)
        except InputError as error:
            print(f"predicting without a split: {error}", file=sys.stderr)
    part = np.full(len(index), OUTSIDE, dtype=object)
    nothing = pd.DataFrame(columns=["path", "case", "part", "same_as", "kept_in"])
    return Split("none", part, "case", nothing, settings={"seed": seed, "folds": folds, "fold": fold})


def _require_known(index: pd.DataFrame, name: str, stage: str) -> None:
    table = "give a CSV with the columns path, label, case"
    unlabelled = int((index["label"] < 0).sum())
    if unlabelled:
        raise InputError(
            f"{stage}: the class of {unlabelled:,} of {len(index):,} patches is not known: put them into folders "
            f"benign and malignant (or 0 and 1), or {table}; predict needs none"
        )
    unknown = int((index["case"] == UNKNOWN_CASE).sum())
    if unknown and name in FOLDED:
        raise InputError(
            f"{stage}: the case of {unknown:,} of {len(index):,} patches is not known, so they cannot be split by "
            f"case: put the patches of each case into a folder of its name, or {table}; predict needs none"
        )


def check_disjoint(index: pd.DataFrame, part: np.ndarray, unit: str) -> None:
    """Check that no case (with unit `patch`: no patch) and no image is in two parts.

    The rules of `split_rules` do not produce that; every run proves it.

    Raises:
        InputError: One does; the first one found is named.
    """
    # Few patches share their image or key, and only these are compared by name.
    keys = {"image": index["hash"].to_numpy()} | ({} if unit == "case" else {unit: hash_keys(index)})
    for name, values in keys.items():
        rows = _repeated_rows(values)
        named = values[rows] if name == "image" else np.array(list(iterate_keys(index.iloc[rows])), dtype=object)
        _require_one_part(name, named, part[rows])
    if unit == "case":
        pair, cases, parts = _number_pairs(index, part)
        found = np.flatnonzero(np.bincount(pair))
        _require_one_part(unit, cases[found], parts[found])


def _require_one_part(name: str, values: np.ndarray, part: np.ndarray) -> None:
    used = np.isin(part, PARTS)
    different = pd.DataFrame({"key": values[used], "part": part[used]}).drop_duplicates()
    twice = different[different["key"].duplicated()]
    if len(twice):
        raise InputError(f"split: {name} {twice['key'].iloc[0]} stands in two parts; give it one")


def _number_pairs(index: pd.DataFrame, part: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number each patch's pair of case and part, in the order of the cases' first patches.

    Numbers, as the strings of a large store would take gigabytes.

    Returns:
        (N,) numbers, integer; the case and the part of each number, object arrays of strings.
    """
    pair, cases = index["case"].factorize()
    names = (*PARTS, OUTSIDE, LEFT_OUT)
    pair *= len(names)
    for number, name in enumerate(names):
        pair[part == name] += number
    return (
        pair,
        np.repeat(np.array(cases, dtype=object), len(names)),
        np.tile(np.array(names, dtype=object), len(cases)),
    )


def _repeated_rows(values: np.ndarray) -> np.ndarray:
    """Return where stands what stands there more than once, ascending, int64; they are few as a rule."""
    ordered = np.sort(values)
    repeated = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if len(repeated) == 0:
        return np.empty(0, dtype=np.int64)
    place = np.minimum(np.searchsorted(repeated, values), len(repeated) - 1)
    return np.flatnonzero(repeated[place] == values)


def check_parts(index: pd.DataFrame, split: Split, needed: tuple[str, ...]) -> None:
    """Check that each part needed holds both classes.

    Raises:
        InputError: A part is empty or holds one class only.
    """
    advice = {
        "case": "add cases, or use another --data.seed",
        "patch": "add patches, or use another --data.seed",
        "official": "use --data.split case, which needs no published case",
        "extended": "use --data.split case, which needs no published case",
    }.get(split.name, "name other cases for it in the file")
    for part in needed:
        labels = index["label"].to_numpy()[split.rows(part)]
        if len(labels) == 0:
            raise InputError(f"split {split.name}: its {part} part is empty; {advice}")
        if labels.min() == labels.max():
            only = "IDC" if labels[0] else "benign"
            raise InputError(f"split {split.name}: its {part} part holds {only} patches only; {advice}")


def _check_folds(name: str, folds: int | None, fold: int | None) -> None:
    if (folds is None) != (fold is None):
        raise InputError(f"data.folds and data.fold go together, got folds={folds} and fold={fold}")
    if folds is None or fold is None:
        return
    if name not in FOLDED:
        raise InputError(f"data.folds: cross-validation goes with --data.split {', '.join(FOLDED)}; got {name!r}")
    if folds < 2 or not 0 <= fold < folds:
        raise InputError(f"data.fold: expected 2 folds or more and 0 <= fold < folds, got folds={folds}, fold={fold}")
