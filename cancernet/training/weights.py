"""Weights from elsewhere: `convert` makes a checkpoint of them, `fit --model.weights` starts from them."""

from pathlib import Path
from typing import Any

import lightning
import torch

from cancernet import __version__
from cancernet.checkpoints import read_checkpoint, replace_checkpoint
from cancernet.data.training_record import TrainingRecord
from cancernet.errors import InputError
from cancernet.model.fused.network import TorchNetwork
from cancernet.model.keras_files.weights import FlattenOrder, NetworkWeights, load_weights, read_weights
from cancernet.model.registry import create_network
from cancernet.pretrained import is_checkpoint
from cancernet.training.checkpoints import data_state, network_config, require_same_weights

NETWORK_PREFIX = "network."
"""Before the network's names in the task's `state_dict`."""


def convert(file: Path, checkpoint: Path, image_size: int | None = None, flatten: FlattenOrder | None = None) -> None:
    """Write a checkpoint from a CancerNet that Keras or tf.keras saved.

    It fits, tests and predicts like one that `fit` wrote. Which cases trained it is not known, and every test says so.
    The network is taken to see pixels scaled to [0, 1], and IDC to be the second of two classes, as in the tutorial.

    Args:
        file: A `.keras`, `.weights.h5` or `.h5` file of Keras 1, 2 or 3; it is read as data, nothing in it is run.
        checkpoint: The file to write, such as cancernet.ckpt.
        image_size: Side of the network's input in pixels, where the file does not say it; the tutorial's 48 otherwise.
        flatten: Order in which the dense layer reads the image, where the file does not say it: `hwc`, Keras' own, or
            `chw` for a channels-first model that flattened without transposing.

    Raises:
        InputError: Not such a file, not a CancerNet, code in the file, or a checkpoint of that name.
    """
    if checkpoint.exists():
        raise InputError(f"{checkpoint} exists already; name another checkpoint, or remove it first")
    if checkpoint.suffix != ".ckpt":
        raise InputError(f"{checkpoint}: a checkpoint's name ends in .ckpt; name it {checkpoint.name}.ckpt")
    weights = read_weights(file, image_size, flatten)
    replace_checkpoint(checkpoint, make_checkpoint(weights))
    print(f"{weights.source}: {weights.classes} output unit{'s'[: weights.classes - 1]}, {_size(weights)}")
    print(checkpoint)


def make_checkpoint(weights: NetworkWeights) -> dict[str, Any]:
    """Return the content of a checkpoint before any training: no optimiser state, no epoch, no data."""
    network = create_network("cancernet", {}, weights.image_size, weights.classes)
    load_weights(network, weights)
    return {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": {f"{NETWORK_PREFIX}{name}": value for name, value in network.state_dict().items()},
        "callbacks": {},
        # Empty, not absent: `fit --ckpt_path` then starts with a fresh optimiser.
        "optimizer_states": [],
        "lr_schedulers": [],
        "cancernet": {
            "version": __version__,
            "network": "cancernet",
            "classes": weights.classes,
            "image_size": weights.image_size,
            "tta": False,
            "calibration": None,
            "converted_from": weights.source,
        },
        "IDCDataModule": _nothing_known(),
    }


def start_from(network: TorchNetwork, file: str, description: dict[str, Any]) -> dict[str, Any]:
    """Fill a network with weights from a Keras file or from a checkpoint of this project.

    Args:
        network: To be filled.
        file: Its path.
        description: As `network_config` gives it. Sizes that share their weights may differ.

    Returns:
        State of a data module that has seen what trained these weights.

    Raises:
        InputError: Not such a file, or another network.
    """
    if not is_checkpoint(file):
        if description["network"] != "cancernet":
            raise InputError(f"model.weights: {file}: only CancerNet starts from a file of Keras'; give a checkpoint")
        load_weights(network, read_weights(Path(file).expanduser()))
        return _nothing_known()
    content = read_checkpoint(file)
    recorded = network_config(content)
    different = [name for name in ("network", "network_arguments", "classes") if recorded[name] != description[name]]
    if different:
        name = different[0]
        raise InputError(
            f"model.weights: {file} holds a network with {name} {recorded[name]!r}, this one {description[name]!r}; "
            f"give --model.{name} {recorded[name]!r}, or another file"
        )
    size = len(NETWORK_PREFIX)
    state = {name[size:]: value for name, value in content["state_dict"].items() if name.startswith(NETWORK_PREFIX)}
    try:
        require_same_weights(state, network.state_dict())
    except InputError as error:
        size = recorded["image_size"]
        hint = "" if size == description["image_size"] else f", or --model.image_size {size}, as it was trained"
        raise InputError(f"model.weights: {file}: {error}{hint}") from error
    # Clones: a mapped file must not lie under weights that training writes to.
    network.load_state_dict({name: torch.clone(value) for name, value in state.items()})
    return data_state(content) or _nothing_known()


def _nothing_known() -> dict[str, Any]:
    return {"arguments": {}, "description": {}, "exposure": TrainingRecord.unknown().state()}


def _size(weights: NetworkWeights) -> str:
    size = f"images of {weights.image_size} x {weights.image_size} pixels"
    if weights.image_size_known:
        return size
    return f"{size} (the file does not say; the tutorial's. If it was trained on others, give --image_size)"
