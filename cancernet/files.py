"""Files that are whole or are not there."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cancernet.errors import InputError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a place beside a file to write to, and put what was written in the file's place at the end.

    A reader meets the old file or the new one, never a part; an error or an interruption leaves the old one. A link to
    a file stays a link.

    Args:
        path: The file, which need not exist yet; its folder has to.

    Yields:
        Where to write, in the same folder.
    """
    path = Path(path).resolve()
    beside = path.with_name(f".{path.name}.partial")
    try:
        yield beside
        with beside.open("rb+") as file:
            # Or a power cut could leave the new name with an empty file.
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a file, and its folder where there is none.

    Raises:
        InputError: The place cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            beside.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); give a place that can be") from error
    return path


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a JSON file (see `write_text`); what is undefined (not a number) becomes null."""
    return write_text(path, json.dumps(_without_nan(content), indent=2, ensure_ascii=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
