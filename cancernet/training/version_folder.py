"""A folder for each run: runs that start in one instant do not share one."""

from pathlib import Path
from typing import Any


def reserve_version(logger: Any) -> None:
    """Number a run by making its folder, which only one of several can.

    Lightning's loggers take the next free number when they are first asked, and make the folder later.

    Args:
        logger: One of Lightning's that number their runs and has not yet; any other is left as it is.
    """
    if getattr(logger, "_version", "other") is not None or not hasattr(logger, "_get_next_version"):
        return
    while logger._version is None:
        number = logger._get_next_version()
        try:
            (Path(logger.root_dir) / f"version_{number}").mkdir(parents=True)
        except FileExistsError:
            continue
        logger._version = number
