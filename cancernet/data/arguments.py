"""The data module's arguments as a checkpoint keeps them: found again from any folder, and on another root."""

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cancernet.errors import InputError

ABOUT_ROOT = ("columns", "mpp")
"""Arguments that describe a root, and mean nothing for another one."""


def recorded_arguments(recorded: Mapping[str, Any], root_given: bool) -> dict[str, Any]:
    """Return what a checkpoint records, without what describes its own root where another one is given.

    >>> recorded_arguments({"seed": 3, "columns": {"path": "image"}}, root_given=True)
    {'seed': 3}
    """
    return {name: value for name, value in recorded.items() if not (root_given and name in ABOUT_ROOT)}


def check_arguments(seed: int, batch_size: int, stain_normalization: float, loader_workers: int) -> None:
    """Refuse numbers out of range.

    Raises:
        InputError: Names the argument.
    """
    for name, value, least in (("seed", seed, 0), ("batch_size", batch_size, 1), ("loader_workers", loader_workers, 0)):
        if value < least:
            raise InputError(f"data.{name}: expected {least} or more, got {value}")
    if not 0 <= stain_normalization <= 1:
        raise InputError(f"data.stain_normalization: expected a share from 0 to 1, got {stain_normalization}")


def describe_change(recorded: Mapping[str, Any], arguments: Mapping[str, Any], fingerprint: str) -> str | None:
    """Say that a root holds other data than when a model was trained on it; None where it does not.

    Args:
        recorded: State of the data module in the model's checkpoint.
        arguments: Those of the data module now.
        fingerprint: Of the archive now.
    """
    if any(recorded["arguments"].get(name) != arguments.get(name) for name in ABOUT_ROOT):
        return None
    trained_on = recorded["description"].get("fingerprint")
    if recorded["arguments"].get("root") != arguments["root"] or trained_on in (None, fingerprint):
        return None
    return (
        f"{arguments['root']} has changed since this model was trained on it: files were added, removed or changed, "
        "so the parts of the split may hold other patches than then"
    )


def expand_root(root: list[str] | str) -> list[str] | str:
    """Write out the home folder in a root or a list of these."""
    return str(Path(root).expanduser()) if isinstance(root, str) else [str(Path(path).expanduser()) for path in root]


def absolute_root(root: list[str] | str) -> list[str] | str:
    """Make a root independent of the working folder; what is neither there nor a pattern stays a word."""
    if not isinstance(root, str):
        return [str(absolute_root(path)) for path in root]
    if Path(root).exists():
        return str(Path(root).resolve())
    return str(Path(root).absolute()) if glob.has_magic(root) else root
