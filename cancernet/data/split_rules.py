"""Assign each patch to a part: pure functions of the store's index table.

`cancernet.data.splits` gives them their names and checks their result.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from cancernet.data.case_lists import OFFICIAL
from cancernet.data.split_files import read_split_file
from cancernet.errors import InputError

PARTS = ("train", "validation", "test")
"""The parts that a model uses. An image that is in two of them stays in the earlier one."""
OUTSIDE = "outside"
"""Part of the patches that a split does not name."""
LEFT_OUT = "left_out"
"""Part of the patches whose image is in an earlier part as well."""
TEST_FRACTION = 0.2
VALIDATION_FRACTION = 0.1
"""Fractions of all patches or cases, and of those that are not in the test part, as in the 2019 tutorial."""
KEYS_AT_ONCE = 1 << 13
"""Patches whose keys are made at a time: as Python strings those of a large store would take gigabytes."""
PREVALENCE_GRID = 0.05
"""Edges of the strata are rounded to this, so that one more case seldom moves an edge."""


def split_cases(index: pd.DataFrame, seed: int, folds: int | None = None, fold: int | None = None) -> np.ndarray:
    """Split whole cases, stratified by quintile of their prevalence.

    Within a stratum, cases are ordered by a hash of seed and case; the first are the test part, the next the validation
    part. The order of two cases never depends on a third, so an additional case moves another one only where it shifts
    a cut. (Only rules that look at each case alone move none; those keep neither the fractions nor the strata.)

    Args:
        index: The store's index table (columns `case`, `label`).
        seed: Determines the order.
        folds: Number of cross-validation folds.
        fold: The fold that is the test part.

    Returns:
        (N,) object array of part names.

    Raises:
        InputError: There are fewer than 3 cases, or fewer cases than folds.

    >>> index = pd.DataFrame({"case": list("abcde"), "label": [0, 1, 0, 1, 0]})
    >>> split_cases(index, seed=0).tolist()
    ['train', 'train', 'validation', 'train', 'test']
    """
    prevalence = _prevalence(index)
    if len(prevalence) < 3:
        raise InputError(
            f"data.split: 3 cases or more are needed to split by case, found {len(prevalence)}; add cases, or use "
            "--data.split patch (it leaks)"
        )
    strata = _strata(prevalence, seed)
    tests = _hold_out(strata, TEST_FRACTION) if folds is None or fold is None else _deal(strata, folds, fold)
    rest = [[case for case in stratum if case not in tests] for stratum in strata]
    validations = _hold_out(rest, VALIDATION_FRACTION)
    part_of = {
        case: "test" if case in tests else "validation" if case in validations else "train" for case in prevalence
    }
    return part_by_case(index, part_of)


def part_by_case(index: pd.DataFrame, part_of: Mapping[str, str], otherwise: str = OUTSIDE) -> np.ndarray:
    """Return the part (N,) of each patch by its case, without a new string for each.

    >>> part_by_case(pd.DataFrame({"case": ["8", "9", "8"]}), {"8": "test"}).tolist()
    ['test', 'outside', 'test']
    """
    code, cases = index["case"].factorize()
    return np.array([part_of.get(str(case), otherwise) for case in cases], dtype=object)[code]


def split_patches(index: pd.DataFrame, seed: int) -> np.ndarray:
    """Split single patches in the tutorial's fractions: neighbours in one tumour come to be in different parts.

    Returns:
        (N,) object array of part names.
    """
    orders = np.fromiter((_order(seed, key) for key in iterate_keys(index)), np.uint64, len(index))
    order = np.argsort(orders, kind="stable")
    tests = round(TEST_FRACTION * len(index))
    validations = round(VALIDATION_FRACTION * (len(index) - tests))
    part = np.full(len(index), "train", dtype=object)
    part[order[:tests]] = "test"
    part[order[tests : tests + validations]] = "validation"
    return part


def split_published(
    index: pd.DataFrame, extended: bool, seed: int = 0, folds: int | None = None, fold: int | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Split by the published lists; `extended` adds every unlisted case to training.

    Folds divide the training and validation cases again, stratified by prevalence: each is in the validation part of
    one fold, which compares recipes on more cases than the listed validation part has. The test part stays.

    Returns:
        (N,) object array of part names, and the listed cases that the archive lacks.
    """
    part_of = {case: part for part, cases in OFFICIAL.items() for case in cases}
    present = set(index["case"].unique())
    part = part_by_case(index, part_of, "train" if extended else OUTSIDE)
    if folds is not None and fold is not None:
        seen = np.isin(part, ("train", "validation"))
        validations = _deal(_strata(_prevalence(index[seen]), seed), folds, fold)
        part[seen] = "train"
        part[seen & index["case"].isin(validations).to_numpy()] = "validation"
    return part, tuple(case for case in part_of if case not in present)


def read_split(path: Path, index: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Read parts from a CSV file in the format of `split.csv`.

    Returns:
        (N,) object array of part names (`outside` where the file names neither patch nor case), and the unit, `case`
        or `patch`.

    Raises:
        InputError: The file cannot be used (see `read_split_file`), a part has an unknown name, or a case or patch is
            in two parts.
    """
    key, pairs = read_split_file(path)
    table = pd.DataFrame(pairs, columns=[key, "part"], dtype=object)
    unknown = set(table["part"]) - {*PARTS, OUTSIDE, LEFT_OUT}
    if unknown:
        raise InputError(f"{path}: unknown part {min(unknown)!r}; use one of {', '.join((*PARTS, OUTSIDE))}")
    named = table[table["part"] != LEFT_OUT].drop_duplicates([key, "part"])
    twice = named[named[key].duplicated()]
    if len(twice):
        raise InputError(f"{path}: {key} {twice[key].iloc[0]!r} stands in two parts; give each {key} one part")
    part_of = dict(zip(named[key], named["part"], strict=True))
    if key == "case":
        return part_by_case(index, part_of), "case"
    return np.array([part_of.get(path, OUTSIDE) for path in index["path"]], dtype=object), "patch"


def iterate_keys(index: pd.DataFrame) -> Iterator[str]:
    """Yield what identifies each patch wherever its archive is kept: case and position, or case and file name.

    Where the case is not known, the path within the archive takes their place.

    >>> index = pd.DataFrame({"case": ["8", "9", ""], "path": ["8/0/a.png", "9/b.png", "0/c.png"]})
    >>> list(iterate_keys(index.assign(x=[51, -1, -1], y=[1, -1, -1])))
    ['8/51,1', '9/b.png', '/0/c.png']
    """
    for start in range(0, len(index), KEYS_AT_ONCE):
        block = index.iloc[start : start + KEYS_AT_ONCE]
        columns = (block[name].tolist() for name in ("case", "path", "x", "y"))
        # Plain strings: pandas' own string columns take several times as long, a second for the whole archive.
        for case, path, x, y in zip(*columns, strict=True):
            name = path.rsplit("/", 1)[-1] if case else path
            yield f"{case}/{x},{y}" if x >= 0 else f"{case}/{name}"


def hash_keys(index: pd.DataFrame) -> np.ndarray:
    """Return a hash of each patch's key (see `iterate_keys`), (N,) int64."""
    digests = (hashlib.blake2b(key.encode(), digest_size=8).digest() for key in iterate_keys(index))
    return np.fromiter((int.from_bytes(digest, "little", signed=True) for digest in digests), np.int64, len(index))


def _order(seed: int, key: str) -> int:
    """Return a number in [0, 2^64) that depends on the seed and the key alone."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest(), "big")


def _prevalence(index: pd.DataFrame) -> dict[str, float]:
    means = index.groupby("case", sort=True, observed=True)["label"].mean()
    return {str(case): float(mean) for case, mean in means.items()}


def _strata(prevalence: dict[str, float], seed: int) -> list[list[str]]:
    """Group cases by quintile of their prevalence, each group ordered by the seed."""
    if not prevalence:
        return []
    edges = np.quantile(list(prevalence.values()), [0.2, 0.4, 0.6, 0.8])
    edges = np.round(edges / PREVALENCE_GRID) * PREVALENCE_GRID
    stratum = {case: int(np.searchsorted(edges, value, side="right")) for case, value in prevalence.items()}
    ordered = sorted(prevalence, key=lambda case: _order(seed, case))
    return [[case for case in ordered if stratum[case] == number] for number in range(len(edges) + 1)]


def _hold_out(strata: list[list[str]], fraction: float) -> set[str]:
    """Take the first cases of each stratum: a fraction of all (one case at least), by largest remainder."""
    sizes = np.array([len(stratum) for stratum in strata])
    total = max(1, round(fraction * int(sizes.sum())))
    exact = sizes * total / sizes.sum()
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    return {case for stratum, count in zip(strata, counts, strict=True) for case in stratum[:count]}


def _deal(strata: list[list[str]], folds: int, fold: int) -> set[str]:
    """Deal the cases of all strata to the folds in turn and return one fold."""
    cases = [case for stratum in strata for case in stratum]
    if len(cases) < folds:
        raise InputError(f"data.folds: {folds} folds need as many cases, the archive has {len(cases)}")
    return set(cases[fold::folds])
