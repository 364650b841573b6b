"""Threshold and temperature from the validation part, stored in the checkpoint that they belong to."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from cancernet.data.batches import BatchSampler, Patches
from cancernet.data.datamodule import IDCDataModule
from cancernet.data.store.store import spread
from cancernet.data.training_record import Exposure
from cancernet.errors import InputError
from cancernet.evaluation.analysis import Scores, fit_calibration
from cancernet.training.batch_norm import measure_statistics
from cancernet.training.checkpoints import data_state, read_checkpoint, recorded_network, replace_checkpoint
from cancernet.training.task import ClassificationTask

MEASURED_PATCHES = 16_384
"""So many training patches at most tell the statistics of batch norm; on the CPU they take seconds."""
MEASURED_BATCH = 256
"""Large enough for the variance within a batch to be that of all."""


def calibrate(
    checkpoint: Path,
    root: str | None = None,
    split: str | None = None,
    cache: str | None = None,
    batch_size: int | None = None,
    test_time_symmetries: bool | None = None,
    network: str | None = None,
    measure_batch_norm: bool = False,
) -> None:
    """Choose threshold, operating points and temperature on validation and store them in the checkpoint.

    `fit` does this at its end. The network and the data are those that the checkpoint records.

    Args:
        checkpoint: The file, such as .../checkpoints/best.ckpt; it is replaced when all is done.
        root: Where the data lies now, if not where it was trained; or other data, whose validation part then counts.
        split: Another split than the recorded one, or where its CSV file lies now.
        cache: Folder for packed stores; the user's cache folder where not given.
        batch_size: Patches per batch.
        test_time_symmetries: From now on, average the logit over the eight symmetries of the square, or do not.
        network: The network that the checkpoint names, where that is neither ours nor Keras': its code is then run.
        measure_batch_norm: First measure the statistics of batch norm anew on training patches, without dropout and
            augmentation.

    Raises:
        InputError: No such checkpoint or data, cases in the validation part that trained the model, a validation part
            that nothing can be chosen on, or statistics to be measured on other data than it was trained on.
    """
    content = read_checkpoint(checkpoint)
    recorded_network(content, network)
    state = data_state(content)
    if not state:
        raise InputError(f"{checkpoint}: holds no record of its data, so what it has seen is unknown; train again")
    given = {"root": root, "split": split, "cache": cache, "batch_size": batch_size}
    changes = {name: value for name, value in given.items() if value is not None}
    data = IDCDataModule(**{**state["arguments"], **changes})
    data.setup("validate")
    data.load_state_dict(state)
    if measure_batch_norm:
        _refuse_other_training(checkpoint, data, state)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    print(calibrate_checkpoint(checkpoint, data, device, network, test_time_symmetries, measure_batch_norm), flush=True)


def calibrate_checkpoint(
    path: str | Path,
    data: IDCDataModule,
    device: torch.device,
    network: str | None = None,
    test_time_symmetries: bool | None = None,
    measure: bool = False,
) -> str:
    """Choose threshold and temperature for one checkpoint and store them in it.

    The pass over the validation part goes through the checkpoint's own weights: those of the best epoch, averaged
    where the run averaged them, are neither what the run's last validation saw nor what training left in memory. It
    needs no other process, so one of several may run it alone.

    Args:
        path: The checkpoint.
        data: Set up, and checked against what the checkpoint has seen.
        device: Where to run.
        network: See `runs.recorded_network`.
        test_time_symmetries: Whether the model is to average over symmetries from now on; None leaves it.
        measure: Whether to measure the statistics of batch norm anew first, on the training part.

    Returns:
        One line that says what was chosen.

    Raises:
        InputError: One class only, or logits that are not finite.
    """
    content = read_checkpoint(path, mapped=False)
    if test_time_symmetries is not None:
        content["cancernet"]["test_time_symmetries"] = test_time_symmetries
    task = ClassificationTask(**recorded_network(content, network))
    task.load_state_dict(content["state_dict"])
    if measure:
        task.to(device)
        measure_statistics(task, _mixed_training_images(data, device))
        content["state_dict"] = {name: value.cpu() for name, value in task.state_dict().items()}
    rows = data.split.rows("validation")
    index = data.store.index.iloc[rows]
    logit = predict_rows(task, data, rows, device)
    try:
        found = fit_calibration(Scores(index["label"].to_numpy(), logit, index["case"].to_numpy(dtype=object)))
    except ValueError as error:
        raise InputError(f"{path}: cannot be calibrated on its validation part: {error}") from error
    content["cancernet"]["calibration"] = {**found.model_dump(), "data": data.description}
    content["IDCDataModule"]["exposure"] = _expose(content, data).state()
    replace_checkpoint(path, content)
    threshold, temperature = f"{found.threshold:.4f} (Youden)", f"{found.temperature:.4f}"
    if found.bounded:
        temperature += " (the end of the range searched)"
    source = f"{found.patches:,} validation patches of {found.cases} case{'s' * (found.cases != 1)}"
    return f"{Path(path).name}: threshold {threshold}, temperature {temperature}, from {source}"


def predict_rows(task: ClassificationTask, data: IDCDataModule, rows: np.ndarray, device: torch.device) -> np.ndarray:
    """Run some patches of a store through a network, in this process alone.

    Args:
        task: Its weights are left as they are; it stays on the device.
        data: Set up.
        rows: (M,) store rows, ascending.
        device: Where to run.

    Returns:
        (M,) float32 logits of IDC.
    """
    task.eval().to(device)
    with torch.inference_mode():
        batches = [task.predict_logit(image).cpu() for image in _images(data, rows, device, data.batch_size)]
    return torch.cat(batches).numpy()


def _mixed_training_images(data: IDCDataModule, device: torch.device) -> Iterator[Tensor]:
    rows = data.split.rows("train")
    return _images(data, rows[spread(len(rows), MEASURED_PATCHES)], device, MEASURED_BATCH, shuffle=True)


def _images(
    data: IDCDataModule, rows: np.ndarray, device: torch.device, batch_size: int, shuffle: bool = False
) -> Iterator[Tensor]:
    """Yield batches of patches as a network in use takes them, (B, 3, H, W)."""
    sampler = BatchSampler(rows, batch_size, shuffle, seed=0, rank=0, world_size=1)
    loader = DataLoader(Patches(data.store, with_images=True, seed=0), batch_size=None, sampler=sampler)
    for batch in tqdm(loader, desc="calibrating", unit="batch", delay=1, leave=False, disable=None):
        there: dict[str, Any] = {
            name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()
        }
        yield data.on_after_batch_transfer(there, 0)["image"]


def _refuse_other_training(checkpoint: Path, data: IDCDataModule, state: dict[str, Any]) -> None:
    """Raise where the training part holds patches that did not train the model: its statistics would learn from them.

    Raises:
        InputError: Says so, and what to do.
    """
    here = Exposure.of(data.split, data.store.index).images["train"]
    if not np.isin(here, Exposure.from_state(state["exposure"]).images["train"]).all():
        raise InputError(
            f"measure_batch_norm: the training part of {data.store.name} under this split holds patches that did not "
            f"train {checkpoint}, and its statistics are those of what trained it; leave root and split as they were"
        )


def _expose(content: dict[str, Any], data: IDCDataModule) -> Exposure:
    """Add the cases that chose the threshold to what the model has seen; of the run's own data they are in it."""
    chosen_on = Exposure.of(data.split, data.store.index)
    nothing = np.empty(0, dtype=np.int64)
    chosen_on = replace(
        chosen_on,
        cases={**chosen_on.cases, "train": []},
        patches={**chosen_on.patches, "train": nothing},
        images={**chosen_on.images, "train": nothing},
    )
    return Exposure.from_state(data_state(content)["exposure"]).join(chosen_on)
