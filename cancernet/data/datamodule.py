"""Provide the IDC archive as a LightningDataModule: from a root of any kind to batches on the device."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader

from cancernet.checkpoints import read_checkpoint
from cancernet.data.arguments import absolute_root, check_arguments, describe_change, expand_root, recorded_arguments
from cancernet.data.augment import Operation, scale_and_augment
from cancernet.data.batches import Batch, BatchSampler, Patches, PatchLoader
from cancernet.data.split_rules import PARTS
from cancernet.data.splits import Split, check_parts, split_for
from cancernet.data.stains import CaseStains
from cancernet.data.store.find import find_store
from cancernet.data.store.store import PatchStore
from cancernet.data.training_record import SEEN, TrainingRecord, rows_outside
from cancernet.errors import InputError

RESIDENT_SHARE = 0.6
"""A store is kept on the device where it takes less than this share of the free memory; the network needs the rest."""


class IDCDataModule(LightningDataModule):
    """Patches of the IDC archive, or of another cohort, split so that nothing leaks.

    Args:
        root: The Kaggle zip as downloaded, any other zip or folder of patches (class from folders such as benign and
            malignant, case from the other folders), images, a pattern such as `tiles/*.png` or a list of these, a
            packed store, a CSV table of another cohort, or `synthetic` for an archive that is generated. On the command
            line of `predict` also a region or a slide, whose tiles with tissue are taken.
        split: `case` (whole cases, 80/20, then 10 % of the rest for validation), `patch` (as the 2019 tutorial; it
            leaks), `official` or `extended` (the published case lists), or a CSV file with the columns case (or path)
            and part.
        seed: Orders the cases in the split, and the patches in each epoch.
        folds: Number of folds for cross-validation by case.
        fold: Which fold is the test part, from 0; under a published list it is the validation part.
        batch_size: Patches per batch and process.
        augmentation: Operations on the training patches, in this order: `original` (rotation, zoom, shifts and flips of
            the 2019 recipe), `symmetries` (all eight of the square), `rotation` (by any angle), `stain_jitter` (in
            optical density).
        stain_normalization: Share, 0 to 1, of the way from the stains of each case, measured on its patches, to the
            reference, in training and in use.
        cache: Folder for packed stores and the synthetic archive; the user's cache folder where not given.
        workers: Processes that decode images while packing; all cores where not given.
        loader_workers: Processes that gather batches; 0 gathers them in the training process, mostly fast enough.
        device_resident: Keep the whole store on the device as uint8, so that batches carry row numbers only: `auto`
            (on a GPU, where it fits), `always`, `never`.
        columns: Of a CSV table: which column holds path, label, case, x and y, where its names do not tell.
        verify: Read the whole store first and compare its checksums with those of its packing.
        mpp: Micrometres a pixel of the images, which are scaled to the archive's (about 4); where not given, images of
            other sizes are resized to that of a patch.
    """

    def __init__(
        self,
        root: list[str] | str = "synthetic",
        split: str = "case",
        seed: int = 0,
        folds: int | None = None,
        fold: int | None = None,
        batch_size: int = 256,
        augmentation: Sequence[Operation] = ("symmetries", "stain_jitter"),
        stain_normalization: float = 0.0,
        cache: str | None = None,
        workers: int | None = None,
        loader_workers: int = 0,
        device_resident: Literal["auto", "always", "never"] = "auto",
        columns: dict[str, str] | None = None,
        verify: bool = False,
        mpp: float | None = None,
    ) -> None:
        super().__init__()
        check_arguments(seed, batch_size, stain_normalization, loader_workers)
        self.root = expand_root(root)
        self.columns, self.mpp = columns, mpp
        self.split_name = str(Path(split).expanduser())
        self.seed = seed
        self.folds = folds
        self.fold = fold
        self.batch_size = batch_size
        self.augmentation = list(augmentation)
        self.stain_normalization = stain_normalization
        self.cache = None if cache is None else Path(cache).expanduser()
        self.workers = workers
        self.loader_workers = loader_workers
        self.device_resident = device_resident
        self.verify = verify
        self.split: Split
        self.training_record: TrainingRecord
        self.seen_before: TrainingRecord | None = None
        self._stage: str
        self._resident: Tensor | None = None
        self._stains: CaseStains | None = None

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, **changes: Any) -> Self:  # type: ignore[override]
        """Build the data module that a checkpoint was trained with; nothing in the file is executed.

        Args:
            checkpoint_path: The file.
            **changes: Arguments that differ from the recorded ones, such as where the data lies now.

        Raises:
            InputError: No such checkpoint, or one without a record of its data.
        """
        state = read_checkpoint(checkpoint_path).get(cls.__name__)
        if not state:
            raise InputError(f"{checkpoint_path}: holds no record of its data; give the arguments yourself")
        return cls(**{**recorded_arguments(state["arguments"], "root" in changes), **changes})

    @cached_property
    def store(self) -> PatchStore:
        """The packed store, found on first use: the archive is scanned once for each process."""
        return find_store(self.root, self.cache, self.workers, self.columns, self.mpp)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that a checkpoint keeps: `test` finds the same data again, called from any folder."""
        names = ("seed", "folds", "fold", "batch_size", "augmentation", "stain_normalization", "columns", "mpp")
        return {
            "root": absolute_root(self.root),
            "split": absolute_root(self.split_name),
            "cache": None if self.cache is None else str(self.cache.resolve()),
            **{name: getattr(self, name) for name in names},
        }

    @property
    def description(self) -> dict[str, Any]:
        """Identity of the data and the split: `name`, `fingerprint`, `synthetic`, `split`, `seed`, `folds`, `fold`."""
        source = self.store.manifest["source"]
        return {
            "name": self.store.name,
            "fingerprint": source["fingerprint"],
            "synthetic": self.store.synthetic,
            "split": self.split.name,
            **self.split.settings,
        }

    @property
    def training_counts(self) -> tuple[int, int]:
        """Number of benign and of IDC patches in the training part."""
        counts = np.bincount(self.store.index["label"].to_numpy()[self.split.rows("train")], minlength=2)
        return int(counts[0]), int(counts[1])

    @property
    def balanced_weights(self) -> tuple[float, float]:
        """Class weights of 2019, benign first: count of the larger class divided by that of the class, in training."""
        benign, idc = self.training_counts
        return max(benign, idc) / benign, max(benign, idc) / idc

    def prepare_data(self) -> None:
        """Pack the archive where that has not been done, and verify the store where asked (in one process only)."""
        store = self.store
        if self.verify and not store.fresh:
            store.verify()

    def setup(self, stage: str) -> None:
        """Open the store, make the split and check the parts that the stage needs."""
        # Lightning hands over an enum whose `str` is not its value.
        stage = TrainerFn(stage).value
        self._stage = stage
        index = self.store.index
        if self.store.understood:
            rank_zero_info(self.store.understood)
        self.split = split_for(stage, index, self.split_name, self.seed, self.folds, self.fold)
        if stage == "predict":
            return
        fit_parts = SEEN if self.split.name.endswith(".csv") else PARTS
        needed = {"fit": fit_parts, "validate": ("validation",), "test": ("test",)}[stage]
        check_parts(index, self.split, needed)
        self.training_record = TrainingRecord.of(self.split, index)
        data = f"synthetic data {self.store.name}" if self.store.synthetic else self.store.name
        for line in self.split.describe(data, needed):
            rank_zero_info(line)
        if self.split.unit == "patch":
            rank_zero_warn(
                "This split is by patch: neighbours in one tumour are in training and in test. It does not measure how "
                "the model does on cases it has never seen; use --data.split case for that."
            )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: what the model has seen, and how to find the data again."""
        record = self.training_record if self.seen_before is None else self.training_record.join(self.seen_before)
        return {"arguments": self.arguments, "description": self.description, "exposure": record.state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to evaluate a model on what it has seen, under any root, split or seed.

        Raises:
            InputError: The part to evaluate on holds cases (under a split by patch: patches) that trained the model or
                chose its epoch.
        """
        seen_before = TrainingRecord.from_state(state_dict["exposure"])
        if not seen_before.known and self._stage != "predict":
            rank_zero_warn(
                "This model's weights came from elsewhere: nobody knows which cases trained them, so it may be "
                "evaluated on cases it has seen. Its figures are worth what is known of its origin."
            )
        if changed := describe_change(state_dict, self.arguments, self.description["fingerprint"]):
            rank_zero_warn(changed)
        # Validation on these cases chose the epoch, so `validate` and a resumed fit may use them again.
        checks: dict[str, list[tuple[str, tuple[str, ...]]]] = {
            "fit": [("validation", ("train",)), ("test", SEEN)],
            "validate": [("validation", ("train",))],
            "test": [("test", SEEN)],
            "predict": [],
        }
        for part, seen in checks[self._stage]:
            purpose = "resuming" if self._stage == "fit" else self._stage
            seen_before.refuse(self.store.index, self.split.rows(part), seen, f"{purpose}, {part} part")
            self.split = seen_before.leave_out(self.store.index, self.split, part, seen)
            if self._stage != "fit":
                check_parts(self.store.index, self.split, (part,))
        self.seen_before = seen_before

    def train_dataloader(self) -> DataLoader:
        """Return shuffled batches of the training part; the same in each epoch where they are to be overfitted."""
        return self._loader(self.split.rows("train"), shuffle=not getattr(self.trainer, "overfit_batches", 0))

    def val_dataloader(self) -> DataLoader:
        """Return batches of the validation part, each patch once."""
        return self._loader(self.split.rows("validation"), shuffle=False)

    def test_dataloader(self) -> DataLoader | list[DataLoader]:
        """Return batches of the test part, each patch once, and a second loader where cases are outside the split."""
        test = self._loader(self.split.rows("test"), shuffle=False)
        outside = rows_outside(self.store.index, self.split, self.seen_before)
        return [test, self._loader(outside, shuffle=False)] if len(outside) else test

    def predict_dataloader(self) -> DataLoader:
        """Return batches of all patches, of any part."""
        return self._loader(np.arange(len(self.store)), shuffle=False)

    def batches(
        self, rows: np.ndarray, device: torch.device, batch_size: int, shuffle: bool = False
    ) -> Iterator[Batch]:
        """Yield batches of some rows as a network in use takes them: in this process alone, without augmentation.

        Args:
            rows: (M,) store rows, ascending.
            device: Where the batches go.
            batch_size: Patches per batch.
            shuffle: Whether to mix the rows, always in the same order.

        Yields:
            Batches with `image` as float32 (B, 3, H, W) in [0, 1].
        """
        sampler = BatchSampler(rows, batch_size, shuffle, seed=0, rank=0, world_size=1)
        for batch in PatchLoader.of(Patches(self.store, with_images=True, seed=0), sampler):
            moved = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
            yield self._scale(moved, ())

    def _loader(self, rows: np.ndarray, shuffle: bool) -> DataLoader:
        trainer = self.trainer
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        patches = Patches(self.store, with_images=not self._keep_on_device(), seed=self.seed)
        sampler = BatchSampler(rows, self.batch_size, shuffle, self.seed, rank, world_size)
        return PatchLoader.of(patches, sampler, self.loader_workers, pin_memory=self._device().type == "cuda")

    def _device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def _keep_on_device(self) -> bool:
        """Decide whether the store is kept on the device, and copy it there the first time."""
        device = self._device()
        wanted = self.device_resident == "always"
        if self.device_resident == "auto" and device.type == "cuda":
            wanted = self.store.images.nbytes < RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]
        if wanted and self._resident is None:
            self._resident = torch.from_numpy(np.array(self.store.images)).to(device)
        return wanted

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Gather the images that the device holds, scale to [0, 1] and, in training, augment.

        Returns:
            The batch with `image` as float32 (B, 3, H, W) in channels-last memory format.
        """
        if "image" not in batch and self._resident is not None:
            batch["image"] = self._resident[batch["index"].clamp(min=0)].permute(0, 3, 1, 2)
        return self._scale(batch, self.augmentation if self.trainer is not None and self.trainer.training else ())

    def _scale(self, batch: Batch, operations: Sequence[Operation]) -> Batch:
        if self.stain_normalization > 0 and self._stains is None:
            self._stains = CaseStains(self.store, self.stain_normalization)
        stains = None if self._stains is None else self._stains.of(batch["case"])
        batch["image"] = scale_and_augment(batch["image"], operations, batch["seed"], stains)
        return batch
