"""Run folders and the checkpoints in them."""

import re
from pathlib import Path
from typing import Any

import torch

from cancernet.errors import InputError
from cancernet.files import replacing
from cancernet.model.registry import is_known


def read_checkpoint(path: str | Path, mapped: bool = True) -> dict[str, Any]:
    """Read a checkpoint of ours without executing anything in it.

    Args:
        path: The file.
        mapped: Map the tensors from the file instead of reading them; not where the file is to be replaced.

    Returns:
        The checkpoint's dict.

    Raises:
        InputError: There is no such file, it is no checkpoint, or not one of a CancerNet task.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"ckpt_path: no file {path}; give one that fit wrote, such as .../checkpoints/best.ckpt")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a checkpoint that can be read safely ({first_line}); train again") from error
    if not isinstance(checkpoint, dict) or "cancernet" not in checkpoint or "state_dict" not in checkpoint:
        raise InputError(f"{path}: not a checkpoint of a CancerNet task; give one that `cancernet fit` wrote")
    return checkpoint


def replace_checkpoint(path: str | Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint in the place of the old one, which an interruption leaves whole."""
    with replacing(path) as beside:
        torch.save(checkpoint, beside)


def described_network(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the task's arguments that say what network a checkpoint holds, to be read, not to be built from."""
    content = {"network_arguments": {}, "test_time_symmetries": False, **checkpoint["cancernet"]}
    names = ("network", "network_arguments", "classes", "image_size", "test_time_symmetries")
    return {name: content[name] for name in names}


def recorded_network(checkpoint: dict[str, Any], named: str | None = None, option: str = "--network") -> dict[str, Any]:
    """Return the task's arguments that say what network a checkpoint holds, to build it again.

    Building a network that is neither ours nor Keras' imports a module and runs code in it. A file must not choose
    what is run: only the user can, by naming the very same network.

    Args:
        checkpoint: Its content.
        named: The network that the user named, or that this process trained.
        option: How the user names one here.

    Raises:
        InputError: The network is not known and not named, or another one is named.
    """
    found = described_network(checkpoint)
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


def recorded_calibration(checkpoint: dict[str, Any]) -> dict[str, Any] | None:
    """Return threshold, temperature and operating points of a checkpoint; None where it was not calibrated."""
    return checkpoint["cancernet"].get("calibration")


def data_state(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return what the data module left in a checkpoint, empty where it left nothing."""
    return checkpoint.get("IDCDataModule", {})


def run_folder(checkpoint: str | Path) -> Path:
    """Return the run folder that a checkpoint file belongs to."""
    folder = Path(checkpoint).resolve().parent
    return folder.parent if folder.name == "checkpoints" else folder


def output_folder(checkpoint: str | Path, trained_on: dict[str, Any], used_on: dict[str, Any], verb: str) -> Path:
    """Return (and make) the folder that results of a checkpoint are written to.

    Args:
        checkpoint: The checkpoint's path.
        trained_on: The data module's description when the model was trained.
        used_on: Its description now.
        verb: `test` or `predict`; names the folder.

    Returns:
        The run folder for a test on the run's own data and split, otherwise `<verb>-<name of the data>` in it.
    """
    folder = run_folder(checkpoint)
    if verb != "test" or trained_on != used_on:
        folder = folder / f"{verb}-{re.sub(r'[^A-Za-z0-9._-]+', '-', used_on['name']).strip('-.') or 'data'}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
