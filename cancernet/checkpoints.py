"""Checkpoint files, read safely and written whole; what their entries mean, `training.checkpoints` knows."""

import io
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from cancernet.errors import InputError, one_line
from cancernet.files import replacing
from cancernet.preflight import require_checkpoint

ENTRIES: dict[str, dict[str, type]] = {
    "state_dict": {},
    "cancernet": {"network": str, "classes": int, "image_size": int},
    "IDCDataModule": {"arguments": dict, "description": dict, "exposure": dict},
    "hyper_parameters": {},
}
"""Entries that are read here, each a dict, and what has to be in it; the first two have to be there."""

WEIGHTS = ("state_dict", "current_model_state")
"""Entries that hold weights: those in use, and those that training goes on with where the former are averages."""


def read_checkpoint(path: str | Path, mapped: bool = True) -> dict[str, Any]:
    """Read a checkpoint without executing anything in it.

    A mapped file is read from disk once as long as it does not change: one command asks for it in several places.

    Args:
        path: The file.
        mapped: Map the tensors from the file instead of reading them; not where the file is to be replaced.

    Returns:
        The checkpoint's entries, a dict of the caller's own (its values are shared).

    Raises:
        InputError: There is no such file, it is no checkpoint or a damaged one, not one of a CancerNet task, or its
            weights are not finite.
    """
    path = require_checkpoint(path)
    if not mapped:
        return _load(path, mapped=False)
    status = path.stat()
    return dict(_load_unchanged(path, status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=1)
def _load_unchanged(path: Path, *stamp: int) -> dict[str, Any]:
    return _load(path, mapped=True)


def _load(path: Path, mapped: bool) -> dict[str, Any]:
    _refuse_damage(path)
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:
        raise _unreadable(path, error) from error
    if not isinstance(checkpoint, dict) or "cancernet" not in checkpoint or "state_dict" not in checkpoint:
        raise InputError(f"{path}: not a checkpoint of a CancerNet task; give one that `cancernet fit` wrote")
    _check_entries(path, checkpoint)
    _refuse_diverged(path, checkpoint)
    return checkpoint


def _refuse_damage(path: Path) -> None:
    """Compare the checksums that the file holds of its content, which torch reads without a look at them."""
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()
    except Exception as error:  # besides BadZipFile what a changed flag, method or version of an entry raises
        raise _unreadable(path, error) from error
    if damaged is not None:
        raise _unreadable(path, f"its content is damaged: the checksum of {damaged.partition('/')[2]} differs")


def _unreadable(path: Path, reason: object) -> InputError:
    said = one_line(str(reason).partition("\n")[0]) or type(reason).__name__
    return InputError(f"{path}: not a checkpoint that can be read safely ({said}); take another copy, or train again")


def _check_entries(path: Path, checkpoint: dict[str, Any]) -> None:
    for entry, kinds in ENTRIES.items():
        content = checkpoint.get(entry, {})
        if not isinstance(content, dict):
            raise InputError(f"{path}: its entry {entry} is of another kind; give a checkpoint that `fit` wrote")
        if not content and entry == "IDCDataModule":  # of a data module of the user's own
            continue
        for name, kind in kinds.items():
            if not isinstance(content.get(name), kind):
                raise InputError(f"{path}: its entry {entry} lacks {name}; give a checkpoint that `fit` wrote")


def _refuse_diverged(path: Path, checkpoint: dict[str, Any]) -> None:
    groups = [checkpoint.get(entry, {}) for entry in WEIGHTS]
    for weights in [*groups, checkpoint["cancernet"].get("trained_statistics", {})]:
        for name, value in weights.items():
            if not isinstance(value, torch.Tensor):
                raise InputError(f"{path}: its weight {name} is no tensor; give a checkpoint that `fit` wrote")
            if not torch.isfinite(value).all():
                raise InputError(
                    f"{path}: its weight {name} holds values that are not finite, so training diverged; take an "
                    "earlier checkpoint, or train again at a lower learning rate"
                )


def replace_checkpoint(path: str | Path, checkpoint: dict[str, Any]) -> None:
    """Write a checkpoint atomically: an interruption or a full disk leaves the old file whole.

    Raises:
        InputError: The file cannot be written.
    """
    # Through memory, as Lightning does: torch's own writer hides why the operating system refused.
    content = io.BytesIO()
    torch.save(checkpoint, content)
    with replacing(path) as partial:
        partial.write_bytes(content.getbuffer())
