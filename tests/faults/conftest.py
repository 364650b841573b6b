"""Places to write to that run full or cannot be written."""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.privileged import run_or_skip
from tests.training.calibrated import make_run


class Disk:
    """A file system of its own, in memory.

    Attributes:
        path: Where it is mounted.
    """

    def __init__(self, path: Path, megabytes: int) -> None:
        self.path = path
        path.mkdir()
        _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path))

    def leave(self, size: int) -> None:
        """Fill it up to `size` bytes."""
        free = shutil.disk_usage(self.path).free
        (self.path / "filler").write_bytes(bytes(max(0, free - size)))

    def make_read_only(self) -> None:
        """Let nothing more be written."""
        _mount("-o", "remount,ro", str(self.path))

    def close(self) -> None:
        """Take it away, even where a file of it is still mapped."""
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)


def _mount(*arguments: str) -> None:
    run_or_skip("mount", *arguments, otherwise="no file system can be mounted here")


@pytest.fixture
def make_disk() -> Iterator[Callable[[int], Disk]]:
    """Mount disks of so many megabytes for one test."""
    with ExitStack() as opened:

        def make(megabytes: int) -> Disk:
            # Not in pytest's own folder, which could not be cleared where a killed session left a disk in it.
            place = opened.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            disk = Disk(Path(place) / "disk", megabytes)
            opened.callback(disk.close)
            return disk

        yield make


@pytest.fixture(scope="session")
def run(archive, cache, tmp_path_factory) -> Path:
    """A run that is calibrated, tested and used; copy it to change it."""
    return make_run(archive, cache, tmp_path_factory.mktemp("run"))
