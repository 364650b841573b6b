"""Files that are whole or are not there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
