"""Checkpoint files, read safely and written whole; what their entries mean, `training.checkpoints` knows."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from cancernet.errors import InputError
from cancernet.files import replacing


def read_checkpoint(path: str | Path, mapped: bool = True) -> dict[str, Any]:
    """Read a checkpoint without executing anything in it.

    A mapped file is read from disk once as long as it does not change: one command asks for it in several places.

    Args:
        path: The file.
        mapped: Map the tensors from the file instead of reading them; not where the file is to be replaced.

    Returns:
        The checkpoint's entries, a dict of the caller's own (its values are shared).

    Raises:
        InputError: There is no such file, it is no checkpoint, or not one of a CancerNet task.
    """
    path = Path(path).expanduser().resolve()
    if not path.is_file():
        raise InputError(f"ckpt_path: no file {path}; give one that fit wrote, such as .../checkpoints/best.ckpt")
    if not mapped:
        return _load(path, mapped=False)
    status = path.stat()
    return dict(_load_unchanged(path, status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=1)
def _load_unchanged(path: Path, *stamp: int) -> dict[str, Any]:
    return _load(path, mapped=True)


def _load(path: Path, mapped: bool) -> dict[str, Any]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a checkpoint that can be read safely ({first_line}); train again") from error
    if not isinstance(checkpoint, dict) or "cancernet" not in checkpoint or "state_dict" not in checkpoint:
        raise InputError(f"{path}: not a checkpoint of a CancerNet task; give one that `cancernet fit` wrote")
    return checkpoint


def replace_checkpoint(path: str | Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint atomically: an interruption leaves the old file whole."""
    with replacing(path) as partial:
        torch.save(checkpoint, partial)
