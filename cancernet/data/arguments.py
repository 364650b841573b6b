"""The data module's arguments as a checkpoint keeps them: found again from any folder, and on another root."""

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ABOUT_ROOT = ("columns", "mpp")
"""Arguments that describe a root, and mean nothing for another one."""


def recorded_arguments(recorded: Mapping[str, Any], root_given: bool) -> dict[str, Any]:
    """Return what a checkpoint records, without what describes its own root where another one is given.

    >>> recorded_arguments({"seed": 3, "columns": {"path": "image"}}, root_given=True)
    {'seed': 3}
    """
    return {name: value for name, value in recorded.items() if not (root_given and name in ABOUT_ROOT)}


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
