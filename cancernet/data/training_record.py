"""What a model has seen: the part of a checkpoint that keeps it from being judged on its own training data."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from cancernet.data.assignment import LEFT_OUT, OUTSIDE, patch_keys
from cancernet.data.splits import Split
from cancernet.errors import InputError

SEEN = ("train", "validation")
"""The parts that shape a model: one gives its weights, the other chooses its epoch."""
CASES_OUTSIDE = 4
"""Cases beside the split that a test predicts, for their maps only: they count in no figure."""


@dataclass(frozen=True)
class Exposure:
    """The cases, patches and images that trained a model or chose its epoch.

    Attributes:
        unit: `case` or `patch`: what the split assigned as a whole.
        cases: Part -> sorted case ids.
        patches: Part -> sorted int64 hashes of the patches' keys (case and position).
        images: Part -> sorted int64 image hashes, which tell a patch whatever its file and case are called.
        known: Whether that is all of it. Of weights that came from elsewhere nobody knows what trained them.
    """

    unit: str
    cases: dict[str, list[str]]
    patches: dict[str, np.ndarray]
    images: dict[str, np.ndarray]
    known: bool = True

    @classmethod
    def of(cls, split: Split, index: pd.DataFrame) -> "Exposure":
        """Collect what a fit on this split shows the model."""
        keys = _hash_keys(index)
        images = _as_int64(index["hash"].to_numpy())
        rows = {part: split.rows(part) for part in SEEN}
        return cls(
            unit=split.unit,
            cases={part: sorted(set(index["case"].to_numpy()[rows[part]])) for part in SEEN},
            patches={part: np.unique(keys[rows[part]]) for part in SEEN},
            images={part: np.unique(images[rows[part]]) for part in SEEN},
        )

    @classmethod
    def unknown(cls) -> "Exposure":
        """Return that of a model from elsewhere: no case of which it is known that the model has seen it."""
        nothing = {part: np.empty(0, dtype=np.int64) for part in SEEN}
        return cls("case", {part: [] for part in SEEN}, nothing, dict(nothing), known=False)

    def state(self) -> dict[str, Any]:
        """Return it as plain lists and tensors, which a checkpoint holds without pickled classes."""
        return {
            "unit": self.unit,
            "known": self.known,
            "cases": self.cases,
            "patches": {part: torch.from_numpy(values) for part, values in self.patches.items()},
            "images": {part: torch.from_numpy(values) for part, values in self.images.items()},
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Exposure":
        """Read what `state` wrote."""
        return cls(
            unit=state["unit"],
            cases={part: list(values) for part, values in state["cases"].items()},
            patches={part: values.numpy() for part, values in state["patches"].items()},
            images={part: values.numpy() for part, values in state["images"].items()},
            known=state.get("known", True),
        )

    def join(self, other: "Exposure") -> "Exposure":
        """Return what a model has seen that was trained on both, one after the other."""
        return Exposure(
            unit="patch" if "patch" in (self.unit, other.unit) else "case",
            cases={part: sorted({*self.cases[part], *other.cases[part]}) for part in SEEN},
            patches={part: np.union1d(self.patches[part], other.patches[part]) for part in SEEN},
            images={part: np.union1d(self.images[part], other.images[part]) for part in SEEN},
            known=self.known and other.known,
        )

    def overlap(self, index: pd.DataFrame, rows: np.ndarray) -> dict[str, int]:
        """Count what stands in more than one of training, validation and the rows that judge.

        Args:
            index: The store's index table.
            rows: (M,) store rows that judge.

        Returns:
            Numbers of `cases`, `patches` and `images`; 0 each is the proof that nothing leaked (under a split by patch
            cases do stand on both sides).
        """
        judged = index.iloc[rows]
        sides: dict[str, tuple[Mapping[str, Any], np.ndarray]] = {
            "cases": (self.cases, judged["case"].to_numpy(dtype=object)),
            "patches": (self.patches, _hash_keys(judged)),
            "images": (self.images, _as_int64(judged["hash"].to_numpy())),
        }
        counts = {}
        for name, (seen, met) in sides.items():
            distinct = [pd.Series(side).drop_duplicates() for side in (*(seen[part] for part in SEEN), met)]
            together = pd.concat(distinct)
            counts[name] = together[together.duplicated()].nunique()
        return counts

    def refuse(self, index: pd.DataFrame, rows: np.ndarray, seen: tuple[str, ...], purpose: str) -> None:
        """Raise where rows that are to judge the model belong to what it has seen.

        Args:
            index: The store's index table.
            rows: (M,) store rows of the part that judges.
            seen: Which of `SEEN` must not be met.
            purpose: What is being done, for the message.

        Raises:
            InputError: Names the first cases (under a split by patch: counts the patches) and the way out.
        """
        way_out = "use the split, seed and archive the model was trained with, or cases it has never seen"
        for part in seen:
            role = "trained" if part == "train" else "chose the epoch of"
            if self.unit == "patch":
                met = int(np.isin(_hash_keys(index.iloc[rows]), self.patches[part]).sum())
                if met:
                    raise InputError(f"{purpose}: {met} of its {len(rows)} patches {role} this model; {way_out}")
            else:
                shared = sorted(set(index["case"].to_numpy()[rows]) & set(self.cases[part]))
                if shared:
                    named = ", ".join(shared[:5]) + (f" and {len(shared) - 5} more" if len(shared) > 5 else "")
                    raise InputError(f"{purpose}: cases that {role} this model are in it ({named}); {way_out}")

    def leave_out(self, index: pd.DataFrame, split: Split, part: str, seen: tuple[str, ...]) -> Split:
        """Take out of one part the patches whose very image the model has seen, and list them in the split.

        Returns:
            The split without them.
        """
        rows = split.rows(part)
        images = _as_int64(index["hash"].to_numpy()[rows])
        met = rows[np.isin(images, np.concatenate([self.images[name] for name in seen]))]
        parts = split.part.copy()
        parts[met] = LEFT_OUT
        more = pd.DataFrame(
            {
                "path": index["path"].to_numpy()[met],
                "case": index["case"].to_numpy()[met],
                "part": part,
                "same_as": "",
                "kept_in": "the model's training",
            }
        )
        left_out = pd.concat([split.left_out, more], ignore_index=True) if len(met) else split.left_out
        return Split(split.protocol, parts, split.unit, left_out, split.absent, split.settings)


def rows_outside(index: pd.DataFrame, split: Split, seen: Exposure | None) -> np.ndarray:
    """Choose the largest `CASES_OUTSIDE` cases that the split does not name and the model has never seen.

    Returns:
        Their store rows, ascending, int64.
    """
    cases = index["case"].where(split.part == OUTSIDE)
    if seen is not None:
        cases = cases.mask(cases.isin([case for part in SEEN for case in seen.cases[part]]))
    # By size, then by name: which cases these are depends on nothing else.
    sizes = cases.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    return np.flatnonzero(cases.isin(sizes.index[:CASES_OUTSIDE]))


def _hash_keys(index: pd.DataFrame) -> np.ndarray:
    digests = b"".join(hashlib.blake2b(key.encode(), digest_size=8).digest() for key in patch_keys(index))
    return np.frombuffer(digests, dtype=np.int64)


def _as_int64(hashes: np.ndarray) -> np.ndarray:
    """Torch cannot save unsigned 64-bit tensors everywhere; the bits are the same."""
    return hashes.astype(np.uint64).view(np.int64)
