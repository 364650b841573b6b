"""Calibration of a checkpoint on the validation part: threshold, temperature and, if asked for, batch norm."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cancernet.checkpoints import read_checkpoint, replace_checkpoint
from cancernet.data.batches import evenly_spaced
from cancernet.data.datamodule import IDCDataModule
from cancernet.data.training_record import TrainingRecord
from cancernet.errors import InputError
from cancernet.evaluation.analysis import Scores, fit_calibration
from cancernet.training.batch_norm import measure_statistics
from cancernet.training.checkpoints import data_state, trusted_network_config

MEASURED_PATCHES = 16_384
"""Training patches, at most, that batch norm is recalibrated on; on the CPU they take seconds."""
MEASURED_BATCH = 256
"""Large enough for the variance within a batch to be that of all."""


def calibrate_checkpoint(
    path: str | Path,
    data: IDCDataModule,
    device: torch.device,
    task_class: type[Any],
    network: str | None = None,
    tta: bool | None = None,
    measure: bool = False,
    patches: int | None = None,
) -> str:
    """Choose threshold and temperature for one checkpoint and store them in it.

    The pass over the validation part goes through the checkpoint's own weights: those of the best epoch, averaged
    where the run averaged them, are neither what the run's last validation saw nor what training left in memory. It
    needs no other process, so one of several may run it alone.

    Args:
        path: The checkpoint.
        data: Set up, and checked against what the checkpoint has seen.
        device: Where to run.
        task_class: Builds the task, `ClassificationTask`.
        network: See `trusted_network_config`.
        tta: Whether the model averages over symmetries from now on; None leaves it.
        measure: Whether to recalibrate batch norm first, on the training part.
        patches: Validation patches at most, evenly spaced, of how many the checkpoint then says; None takes all.

    Returns:
        One line that says what was chosen.

    Raises:
        InputError: One class only, or logits that are not finite.
    """
    content = read_checkpoint(path, mapped=False)
    if tta is not None:
        content["cancernet"]["tta"] = tta
        content["cancernet"].pop("test_time_symmetries", None)
    task = task_class(**trusted_network_config(content, network))
    task.load_state_dict(content["state_dict"])
    if measure:
        trained = content["state_dict"]
        task.to(device)
        measure_statistics(task, _mixed_training_images(data, device))
        content["state_dict"] = {name: value.cpu() for name, value in task.state_dict().items()}
        moved = [name for name, value in content["state_dict"].items() if not torch.equal(value, trained[name])]
        # The first time counts: later the statistics are no longer those that training left.
        content["cancernet"].setdefault("trained_statistics", {name: trained[name] for name in moved})
    part = data.split.rows("validation")
    rows = part if patches is None else part[evenly_spaced(len(part), patches)]
    index = data.store.index.iloc[rows]
    logit = predict_rows(task, data, rows, device)
    try:
        found = fit_calibration(Scores(index["label"].to_numpy(), logit, index["case"].to_numpy(dtype=object)))
    except ValueError as error:
        raise InputError(f"{path}: cannot be calibrated on its validation part: {error}") from error
    share = {} if len(rows) == len(part) else {"part_of": len(part)}
    content["cancernet"]["calibration"] = {**found.model_dump(), "data": data.description, **share}
    content["IDCDataModule"]["exposure"] = _expose(content, data).state()
    replace_checkpoint(path, content)
    threshold, temperature = f"{found.threshold:.4f} (Youden)", f"{found.temperature:.4f}"
    if found.bounded:
        temperature += " (the end of the range searched)"
    of = f" of {len(part):,}" if share else ""
    source = f"{found.patches:,}{of} validation patches of {found.cases} case{'s' * (found.cases != 1)}"
    return f"{Path(path).name}: threshold {threshold}, temperature {temperature}, from {source}"


def predict_rows(task: Any, data: IDCDataModule, rows: np.ndarray, device: torch.device) -> np.ndarray:
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
    return _images(data, rows[evenly_spaced(len(rows), MEASURED_PATCHES)], device, MEASURED_BATCH, shuffle=True)


def _images(
    data: IDCDataModule, rows: np.ndarray, device: torch.device, batch_size: int, shuffle: bool = False
) -> Iterator[Tensor]:
    """Yield images (B, 3, H, W) as a network in use takes them, with a progress bar where that takes long."""
    total = -(-len(rows) // batch_size)
    batches = data.batches(rows, device, batch_size, shuffle)
    for batch in tqdm(batches, desc="calibrating", total=total, unit="batch", delay=1, leave=False, disable=None):
        yield batch["image"]


def _expose(content: dict[str, Any], data: IDCDataModule) -> TrainingRecord:
    """Add the cases that chose the threshold to what the model has seen; of the run's own data they are in it."""
    chosen_on, nothing = data.training_record, np.empty(0, dtype=np.int64)
    chosen_on = replace(
        chosen_on,
        cases={**chosen_on.cases, "train": []},
        patches={**chosen_on.patches, "train": nothing},
        images={**chosen_on.images, "train": nothing},
    )
    return TrainingRecord.from_state(data_state(content)["exposure"]).join(chosen_on)
