"""Record what a model has seen: the part of a checkpoint that prevents a test on its own training data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from cancernet.data.split_rules import LEFT_OUT, OUTSIDE, hash_keys
from cancernet.data.splits import Split
from cancernet.errors import InputError, listing, one_line

SEEN = ("train", "validation")
"""The parts that a model has seen: one trains its weights, the other chooses its epoch."""
CASES_OUTSIDE = 4
"""Cases outside the split that a test predicts, for their maps only: they count in no metric."""


@dataclass(frozen=True)
class TrainingRecord:
    """The cases, patches and images that trained a model or chose its epoch.

    Attributes:
        unit: `case` where the split assigned whole cases, `patch` where it assigned single patches.
        cases: Part -> sorted case ids.
        patches: Part -> sorted int64 hashes of the patches' keys (case and position).
        images: Part -> sorted int64 image hashes, which identify a patch under any name of its file and case.
        known: Whether the record is complete; of weights from elsewhere it is not known what trained them.
    """

    unit: str
    cases: dict[str, list[str]]
    patches: dict[str, np.ndarray]
    images: dict[str, np.ndarray]
    known: bool = True

    @classmethod
    def of(cls, split: Split, index: pd.DataFrame) -> "TrainingRecord":
        """Record what a fit on this split shows the model."""
        keys = hash_keys(index)
        images = _as_int64(index["hash"].to_numpy())
        rows = {part: split.rows(part) for part in SEEN}
        return cls(
            unit=split.unit,
            cases={part: _cases_of(index, rows[part]) for part in SEEN},
            patches={part: np.unique(keys[rows[part]]) for part in SEEN},
            images={part: np.unique(images[rows[part]]) for part in SEEN},
        )

    @classmethod
    def unknown(cls) -> "TrainingRecord":
        """Return the record of a model from elsewhere: empty, and marked as incomplete."""
        nothing = {part: np.empty(0, dtype=np.int64) for part in SEEN}
        return cls("case", {part: [] for part in SEEN}, nothing, dict(nothing), known=False)

    def state(self) -> dict[str, Any]:
        """Return the record as lists and tensors, which a checkpoint holds without pickled classes."""
        return {
            "unit": self.unit,
            "known": self.known,
            "cases": self.cases,
            "patches": {part: torch.from_numpy(values) for part, values in self.patches.items()},
            "images": {part: torch.from_numpy(values) for part, values in self.images.items()},
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "TrainingRecord":
        """Read what `state` wrote.

        Raises:
            InputError: The state is something else.
        """
        try:
            return cls(
                unit=str(state["unit"]),
                cases={part: [str(case) for case in state["cases"][part]] for part in SEEN},
                patches={part: state["patches"][part].numpy().astype(np.int64) for part in SEEN},
                images={part: state["images"][part].numpy().astype(np.int64) for part in SEEN},
                known=bool(state.get("known", True)),
            )
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            raise InputError(
                f"the checkpoint's record of what it has seen is damaged ({one_line(error)}); take another copy"
            ) from error

    def join(self, other: "TrainingRecord") -> "TrainingRecord":
        """Return the record of a model that was trained on both, one after the other."""
        return TrainingRecord(
            unit="patch" if "patch" in (self.unit, other.unit) else "case",
            cases={part: sorted({*self.cases[part], *other.cases[part]}) for part in SEEN},
            patches={part: _union(self.patches[part], other.patches[part]) for part in SEEN},
            images={part: _union(self.images[part], other.images[part]) for part in SEEN},
            known=self.known and other.known,
        )

    def overlap(self, index: pd.DataFrame, rows: np.ndarray) -> dict[str, int]:
        """Count what is in more than one of training, validation and the rows to be tested on.

        Args:
            index: The store's index table.
            rows: (M,) store rows to be tested on.

        Returns:
            Numbers of `cases`, `patches` and `images`; 0 each proves that nothing leaked (under a split by patch, cases
            are in several parts).
        """
        tested = index.iloc[rows]
        sides: dict[str, tuple[Mapping[str, Any], np.ndarray]] = {
            "cases": (self.cases, np.array(_cases_of(index, rows), dtype=object)),
            "patches": (self.patches, hash_keys(tested)),
            "images": (self.images, _as_int64(tested["hash"].to_numpy())),
        }
        counts = {}
        for name, (seen, met) in sides.items():
            distinct = [pd.Series(side).drop_duplicates() for side in (*(seen[part] for part in SEEN), met)]
            together = pd.concat(distinct)
            counts[name] = together[together.duplicated()].nunique()
        return counts

    def refuse(self, index: pd.DataFrame, rows: np.ndarray, seen: tuple[str, ...], purpose: str) -> None:
        """Refuse to evaluate a model on what it has seen.

        Args:
            index: The store's index table.
            rows: (M,) store rows to evaluate on.
            seen: The parts of the record (of `SEEN`) that the rows must not belong to.
            purpose: What is being done, for the message.

        Raises:
            InputError: Rows belong to it; the first cases are named (under a split by patch, patches are counted).
        """
        way_out = "use the split, seed and archive the model was trained with, or cases it has never seen"
        for part in seen:
            role = "trained" if part == "train" else "chose the epoch of"
            if self.unit == "patch":
                met = int(np.isin(hash_keys(index.iloc[rows]), self.patches[part]).sum())
                if met:
                    raise InputError(f"{purpose}: {met} of its {len(rows)} patches {role} this model; {way_out}")
            else:
                shared = sorted(set(_cases_of(index, rows)) & set(self.cases[part]))
                if shared:
                    raise InputError(
                        f"{purpose}: cases that {role} this model are in it ({listing(shared)}); {way_out}"
                    )

    def leave_out(self, index: pd.DataFrame, split: Split, part: str, seen: tuple[str, ...]) -> Split:
        """Take out of one part the patches whose image the model has seen.

        Returns:
            The split without them; they are listed in its `left_out`.
        """
        rows = split.rows(part)
        images = _as_int64(index["hash"].to_numpy()[rows])
        met = rows[np.isin(images, np.concatenate([self.images[name] for name in seen]))]
        parts = split.part.copy()
        parts[met] = LEFT_OUT
        more = pd.DataFrame(
            {
                "path": index["path"].iloc[met].to_numpy(),
                "case": index["case"].iloc[met].to_numpy(),
                "part": part,
                "same_as": "",
                "kept_in": "the model's training",
            }
        )
        left_out = pd.concat([split.left_out, more], ignore_index=True) if len(met) else split.left_out
        return replace(split, part=parts, left_out=left_out)


def rows_outside(index: pd.DataFrame, split: Split, seen: TrainingRecord | None) -> np.ndarray:
    """Choose the largest `CASES_OUTSIDE` cases that the split does not name and the model has never seen.

    Returns:
        Their store rows, ascending, int64.
    """
    cases = index["case"].where(split.part == OUTSIDE)
    if seen is not None:
        cases = cases.mask(cases.isin([case for part in SEEN for case in seen.cases[part]]))
    # By size, then by name: which cases these are depends on nothing else.
    sizes = cases.value_counts()
    sizes = sizes.set_axis(sizes.index.astype(str)).sort_index().sort_values(ascending=False, kind="stable")
    return np.flatnonzero(cases.isin(sizes.index[:CASES_OUTSIDE]))


def _union(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Join two sorted sets of hashes, without a copy where one holds the other: as a rule a run meets its own data."""
    if len(other) == 0 or np.array_equal(one, other):
        return one
    return other if len(one) == 0 else np.union1d(one, other)


def _cases_of(index: pd.DataFrame, rows: np.ndarray) -> list[str]:
    return sorted(map(str, index["case"].iloc[rows].unique()))


def _as_int64(hashes: np.ndarray) -> np.ndarray:
    """Reinterpret as signed, with the same bits: torch cannot save unsigned 64-bit tensors everywhere."""
    return hashes.astype(np.uint64, copy=False).view(np.int64)
