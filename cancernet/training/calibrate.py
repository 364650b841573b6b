"""`cancernet calibrate`: calibrate a checkpoint again, on its own validation part or on other data."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cancernet.checkpoints import read_checkpoint
from cancernet.data.arguments import recorded_arguments
from cancernet.data.datamodule import IDCDataModule
from cancernet.data.training_record import TrainingRecord
from cancernet.errors import InputError
from cancernet.files import require_space
from cancernet.pretrained import is_included
from cancernet.training.calibration import calibrate_checkpoint
from cancernet.training.checkpoints import data_state, require_data_record, trusted_network_config
from cancernet.training.task import ClassificationTask


def calibrate(
    checkpoint: Path,
    root: str | None = None,
    split: str | None = None,
    cache: str | None = None,
    batch_size: int | None = None,
    tta: bool | None = None,
    network: str | None = None,
    measure_batch_norm: bool = False,
) -> None:
    """Choose threshold, operating points and temperature on validation and store them in the checkpoint.

    `fit` does this at its end. The network and the data are those that the checkpoint records.

    Args:
        checkpoint: The file, such as .../checkpoints/best.ckpt; it is replaced when all is done.
        root: Where the data lies now; or other data, whose validation part then counts.
        split: Another split than the recorded one, or where its CSV file lies now.
        cache: Folder for packed stores; the user's cache folder where not given.
        batch_size: Patches per batch.
        tta: From now on, average the logit over the eight symmetries of the square (test-time augmentation), or do not.
        network: The network that the checkpoint names, where that belongs neither to this project nor to Keras: its
            code is then run.
        measure_batch_norm: Recalibrate batch norm first: measure its statistics on training patches, without dropout
            and augmentation.

    Raises:
        InputError: No such checkpoint or data, cases in the validation part that trained the model, a validation part
            that nothing can be chosen on, or statistics to be measured on other data than it was trained on.
    """
    content = read_checkpoint(checkpoint)
    if is_included(checkpoint):
        raise InputError(f"{checkpoint}: the included model stays as its card describes it; copy it and calibrate that")
    trusted_network_config(content, network)
    require_data_record(content)
    require_space(checkpoint.parent, checkpoint.stat().st_size)
    state = data_state(content)
    given = {"root": root, "split": split, "cache": cache, "batch_size": batch_size}
    changes = {name: value for name, value in given.items() if value is not None}
    data = IDCDataModule(**{**recorded_arguments(state["arguments"], root is not None), **changes})
    data.setup("validate")
    data.load_state_dict(state)
    if measure_batch_norm:
        _refuse_other_training(checkpoint, data, state)
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    said = calibrate_checkpoint(checkpoint, data, device, ClassificationTask, network, tta, measure_batch_norm)
    print(said, flush=True)


def _refuse_other_training(checkpoint: Path, data: IDCDataModule, state: dict[str, Any]) -> None:
    """Raise where the training part holds patches that did not train the model: its statistics would learn from them.

    Raises:
        InputError: Says so, and what to do.
    """
    here = TrainingRecord.of(data.split, data.store.index).images["train"]
    if not np.isin(here, TrainingRecord.from_state(state["exposure"]).images["train"]).all():
        raise InputError(
            f"measure_batch_norm: the training part of {data.store.name} under this split holds patches that did not "
            f"train {checkpoint}, and its statistics are those of what trained it; leave root and split as they were"
        )
