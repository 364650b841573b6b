"""What a checkpoint records, and where its results go."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cancernet.errors import InputError, brief
from cancernet.model.registry import is_known
from cancernet.pretrained import RESULTS, is_included
from cancernet.training.optimization import OptimizerSettings, ScheduleSettings

NETWORK = ("network", "network_arguments", "classes", "image_size", "tta")
"""Arguments of the task that say what a checkpoint's network is."""


def network_config(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task's arguments that say what network a checkpoint holds, to be read, not to be built from."""
    content = {"network_arguments": {}, "tta": False, **checkpoint["cancernet"]}
    if "test_time_symmetries" in content:  # its name in the files of version 0.1.0
        content["tta"] = content["test_time_symmetries"]
    return {name: content[name] for name in NETWORK}


def trusted_network_config(
    checkpoint: Mapping[str, Any], named: str | None = None, option: str = "--network"
) -> dict[str, Any]:
    """Return the task's arguments that say what network a checkpoint holds, to build it again.

    Building a network that belongs neither to this project nor to Keras imports a module and runs its code. A file must
    not choose what is run: only the user can, by naming the very same network.

    Args:
        checkpoint: Its content.
        named: The network that the user named, or that this process trained.
        option: How the user names one here.

    Raises:
        InputError: The network is not known and not named, or another one is named.
    """
    found = network_config(checkpoint)
    name = found["network"]
    if named not in (None, name):
        raise InputError(
            f"the checkpoint's network has network {name!r}, this one {named!r}; "
            f"give {option} {name}, or another checkpoint"
        )
    if named is None and not is_known(name):
        raise InputError(
            f"the checkpoint's network is {name!r}, and nothing that a file names is run; "
            f"if you trust that code, name it yourself: {option} {name}"
        )
    return found


def recorded_settings(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of the task that wrote a checkpoint; version 0.1.0 recorded those of the network alone.

    Raises:
        InputError: They are not those of this version's task.
    """
    settings = dict(checkpoint.get("hyper_parameters", {}))
    for name, kind in (("optimizer", OptimizerSettings), ("schedule", ScheduleSettings)):
        if name in settings:
            try:
                settings[name] = kind(**settings[name])
            except TypeError as error:
                raise InputError(
                    f"the checkpoint's record of its {name} is not of this version, or damaged ({brief(error)}); "
                    "take another copy, or give the task's arguments yourself"
                ) from error
    if isinstance(settings.get("class_weights"), list):
        settings["class_weights"] = tuple(settings["class_weights"])
    return settings


def require_same_network(checkpoint: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse a checkpoint of another network before any weight is read.

    Raises:
        InputError: Names the first difference.
    """
    recorded = network_config(checkpoint)
    for name, value in wanted.items():
        if recorded[name] != value:
            other = "calibrate the checkpoint" if name == "tta" else "another checkpoint"
            raise InputError(
                f"the checkpoint's network has {name} {recorded[name]!r}, this one {value!r}; "
                f"give --model.{name} {recorded[name]!r}, or {other}"
            )


def require_same_weights(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not those of the network, by the first name that is missing, unknown or of another shape.

    Raises:
        InputError: Names it.
    """
    way_out = "the file is not whole or of another network: give another checkpoint"
    for name in sorted(found.keys() | wanted.keys()):
        if name not in found or name not in wanted:
            raise InputError(f"the checkpoint {'lacks' if name in wanted else 'has'} the weight {name}; {way_out}")
        if found[name].shape != wanted[name].shape:
            shapes = f"{tuple(found[name].shape)} in the checkpoint and {tuple(wanted[name].shape)} in this network"
            raise InputError(f"the weight {name} is of shape {shapes}; {way_out}")


def require_data_record(checkpoint: Mapping[str, Any]) -> None:
    """Refuse a checkpoint that does not say what it has seen.

    Raises:
        InputError: Says so.
    """
    if not data_state(checkpoint):
        raise InputError("the checkpoint holds no record of its data, so what it has seen is unknown; train again")


def require_same_optimizer(checkpoint: dict[str, Any], wanted: OptimizerSettings) -> None:
    """Refuse settings that the restored optimiser would override in silence.

    Raises:
        InputError: Names the first difference.
    """
    recorded = checkpoint.get("hyper_parameters", {}).get("optimizer", {})
    if not recorded and checkpoint["optimizer_states"]:  # version 0.1.0 recorded the optimiser's state alone
        group = checkpoint["optimizer_states"][0]["param_groups"][0]
        recorded = {"lr": group.get("initial_lr", group["lr"])}
    for name, value in recorded.items():
        here = getattr(wanted, name, None)
        if here != value:
            raise InputError(
                f"resuming: model.optimizer.{name} is {here} here and {value} in the checkpoint; give "
                f"--model.optimizer.{name} {value}, or start a new run from these weights with --model.weights instead "
                "of --ckpt_path"
            )


def recorded_calibration(checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """Return threshold, temperature and operating points of a checkpoint; None where it was not calibrated."""
    return checkpoint["cancernet"].get("calibration")


def data_state(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the data module left in a checkpoint, empty where it left nothing."""
    return checkpoint.get("IDCDataModule", {})


def run_folder(checkpoint: str | Path) -> Path:
    """Return the run folder that a checkpoint file belongs to; the included model has one among the runs."""
    if is_included(checkpoint):
        return RESULTS.resolve()
    folder = Path(checkpoint).expanduser().resolve().parent
    return folder.parent if folder.name == "checkpoints" else folder


def output_folder(
    checkpoint: str | Path, trained_on: dict[str, Any], used_on: dict[str, Any], verb: str, whole: bool = True
) -> Path:
    """Return the folder that results of a checkpoint are written to.

    Args:
        checkpoint: The checkpoint's path.
        trained_on: The data module's description when the model was trained.
        used_on: Its description now.
        verb: `test` or `predict`; names the folder.
        whole: Whether the results are of all patches.

    Returns:
        The run folder for a test on the run's own data and split, otherwise `<verb>-<name of the data>` in it; for a
        part `part-of-<verb>...`, so that it never replaces the whole.
    """
    name = [] if whole else ["part", "of", verb]
    if verb != "test" or trained_on != used_on:
        data = re.sub(r"[^A-Za-z0-9._-]+", "-", used_on["name"]).strip("-.") or "data"
        name = [*(name or [verb]), data]
    return run_folder(checkpoint) / "-".join(name)
