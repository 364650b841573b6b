"""Files and folders that are either whole or not there: made under a passing name, renamed when finished."""

import json
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cancernet.errors import InputError

OWNER = "owner.json"
"""In a partial folder: whose it is, so that what a process left half done is told from what one is at."""
_in_use: set[Path] = set()  # partial folders of this process


@contextmanager
def errors_of_disk(output: Path) -> Iterator[None]:
    """Say in one line what the operating system refused."""
    try:
        yield
    except OSError as error:
        place = error.filename or output
        raise InputError(
            f"cannot write the store {output} ({place}: {error.strerror or error}): "
            "free the disk or choose another place (--output, or the cache folder)"
        ) from error


@contextmanager
def partial_folder(output: Path) -> Iterator[Path]:
    """Make a folder beside `output` that is gone afterwards, whatever happens short of a kill."""
    partial = output.with_name(f"{output.name}.partial-{os.getpid()}")
    try:
        partial.mkdir()
    except FileExistsError:  # another machine's process of the same number, or another thread
        partial = partial.with_name(f"{partial.name}-{secrets.token_hex(4)}")
        partial.mkdir()
    _in_use.add(partial)
    try:
        owner = {"host": socket.gethostname(), "pid": os.getpid()}
        (partial / OWNER).write_text(json.dumps(owner), encoding="utf-8")
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        _in_use.discard(partial)


def publish_file(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file under a passing name of the same ending, and rename it when it is whole."""
    with errors_of_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path)
        partial = path.with_name(f"{path.name}.partial-{os.getpid()}{path.suffix}")
        _in_use.add(partial)
        try:
            write(partial)
            sync(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
            _in_use.discard(partial)


def remove_stale(output: Path) -> None:
    """Remove what processes that are gone have left half done beside `output`."""
    pattern = re.compile(re.escape(output.name) + r"\.partial-(\d+)(-[0-9a-f]+)?(\.zip)?")
    for path in output.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match is None or path in _in_use or not _is_abandoned(path, int(match[1])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_abandoned(partial: Path, process: int) -> bool:
    try:
        owner = json.loads((partial / OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        owner = {}
    # On a shared disk the number belongs to another machine, whose processes cannot be seen from here.
    if owner.get("host", socket.gethostname()) != socket.gethostname() or os.name == "nt":
        return False
    if process == os.getpid():
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
