"""Gather batches from a store: which rows each holds, and what is read of them."""

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, SequentialSampler

from cancernet.data.store.store import PatchStore
from cancernet.errors import InputError

Batch = dict[str, Any]

PADDING = -1
"""Index of the rows that fill the last batches of a process in evaluation; they count in no metric."""


def evenly_spaced(total: int, count: int) -> np.ndarray:
    """Return up to `count` numbers (int64) from 0 to `total` - 1, evenly spaced, both ends among them.

    >>> evenly_spaced(9, 3).tolist(), evenly_spaced(2, 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    return np.unique(np.linspace(0, total - 1, count).astype(np.int64))


class Patches(Dataset[Batch]):
    """The patches of a store, gathered a batch at a time.

    Indexing with an int64 array of B store rows gives a dict of `image` (uint8, (B, 3, H, W), a channels-last view;
    absent where the device holds the store), `label` (B,) int64, `case` (B,) int64 code, `x`, `y` (B,) int32, `index`
    (B,) int64 and `seed`, an int that determines the batch's augmentation.
    """

    def __init__(self, store: PatchStore, with_images: bool, seed: int) -> None:
        self.store = store
        self.with_images = with_images
        self.seed = seed
        self.label = store.index["label"].to_numpy()
        self.case = store.case_code
        self.x = store.index["x"].to_numpy(dtype=np.int32)
        self.y = store.index["y"].to_numpy(dtype=np.int32)

    def __getitem__(self, rows: np.ndarray) -> Batch:
        present = np.maximum(rows, 0)
        batch: Batch = {
            "label": torch.from_numpy(self.label[present].astype(np.int64)),
            "case": torch.from_numpy(self.case[present].astype(np.int64)),
            "x": torch.from_numpy(self.x[present]),
            "y": torch.from_numpy(self.y[present]),
            "index": torch.from_numpy(rows),
            # The rows of a batch differ between epochs and processes, and are all it takes to make the batch again.
            "seed": zlib.crc32(rows.tobytes(), self.seed & 0xFFFFFFFF),
        }
        if self.with_images:
            batch["image"] = torch.from_numpy(self.store.gather(present)).permute(0, 3, 1, 2)
        return batch


class BatchSampler(DistributedSampler[np.ndarray], SequentialSampler):
    """Yield the store rows of one batch after the other, for one of several processes.

    It is a `DistributedSampler` so that Lightning leaves it in place: its own would repeat patches in evaluation. And a
    `SequentialSampler`, or Lightning would put its own in the place of this one under `overfit_batches`.

    Attributes:
        start: Number of batches that the next pass leaves out at its beginning.

    Args:
        rows: (M,) store rows of the part.
        batch_size: Patches per batch and process.
        shuffle: In training: another order in each epoch, the processes' shares filled up with patches from the start
            of the order. Otherwise ascending, filled up with `PADDING`.
        seed: Together with the epoch determines the order.
        rank: This process.
        world_size: Number of processes.

    >>> [rows.tolist() for rows in BatchSampler(np.arange(5), 2, shuffle=False, seed=0, rank=1, world_size=2)]
    [[1, 3], [-1]]
    """

    def __init__(self, rows: np.ndarray, batch_size: int, shuffle: bool, seed: int, rank: int, world_size: int) -> None:
        super().__init__(rows, num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.rows = np.asarray(rows, dtype=np.int64)
        self.batch_size = batch_size
        self.world_size = world_size
        self.start = 0

    @property
    def order(self) -> int:
        """A checksum of all that the order of an epoch's batches depends on, besides the epoch."""
        return zlib.crc32(self.rows.tobytes(), zlib.crc32(repr((self.shuffle, self.seed)).encode()))

    def __len__(self) -> int:
        return -(-self._share() // self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:  # type: ignore[override]
        rows = self.rows
        missing = self._share() * self.world_size - len(rows)
        if self.shuffle:
            rows = np.random.default_rng((self.seed, self.epoch)).permutation(rows)
            rows = np.concatenate([rows, np.resize(rows, missing)])
        else:
            rows = np.concatenate([rows, np.full(missing, PADDING, dtype=np.int64)])
        rows = rows[self.rank :: self.world_size]
        for start in range(self.start * self.batch_size, len(rows), self.batch_size):
            yield rows[start : start + self.batch_size].copy()

    def _share(self) -> int:
        return -(-len(self.rows) // self.world_size)


class PatchLoader(DataLoader[Batch]):
    """A loader with a `BatchSampler` that knows how far it is in its epoch, so that an interrupted one can be finished.

    It takes no number from torch's global generator: what dropout draws then depends on the training steps alone.
    """

    _given = 0
    _resumed: dict[str, int] | None = None

    @classmethod
    def of(cls, patches: Patches, sampler: BatchSampler, workers: int = 0, pin_memory: bool = False) -> "PatchLoader":
        """Build a loader.

        Args:
            patches: What is loaded.
            sampler: Says which rows each batch holds.
            workers: Processes that gather batches; 0 for none but this.
            pin_memory: Whether batches lie in memory that a GPU reads at once.
        """
        return cls(
            patches,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pin_memory,
            generator=torch.Generator(),
        )

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        """Yield the batches of the sampler's epoch; after `load_state_dict` those that are left of it."""
        # A generator: nothing happens before the first batch is asked for, when Lightning has set the sampler's epoch.
        state, self._resumed = self._resumed, None
        sampler: Any = self.sampler
        sampler.start = self._given = 0 if state is None else self._left_at(state)
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the position: the epoch, the batches that it has given, and what their rows depend on."""
        sampler: Any = self.sampler
        processes = {"batch_size": sampler.batch_size, "world_size": sampler.world_size}
        return {"epoch": sampler.epoch, "given": self._given, "order": sampler.order, **processes}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Start the next pass where another loader was, if that pass is of the same epoch."""
        self._resumed = state_dict

    def _left_at(self, state: dict[str, int]) -> int:
        here = {**self.state_dict(), "given": state["given"]}
        if state["epoch"] != here["epoch"]:
            return 0
        for name in ("batch_size", "world_size", "order"):
            if state[name] != here[name]:
                what = "data, split or seed" if name == "order" else name.replace("world_size", "number of processes")
                raise InputError(
                    f"resuming in the middle of an epoch needs the same {what} as before ({state[name]}, now "
                    f"{here[name]}), or patches would count twice or not at all; leave it as it was, or resume from a "
                    "checkpoint of an epoch's end, such as last.ckpt"
                )
        return state["given"]
