"""Atomic writes: a file or a folder is there as a whole, or not at all."""

import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from cancernet.errors import InputError, one_line

try:
    import fcntl
except ImportError:  # Windows: leftovers are told by their age alone
    fcntl = None  # type: ignore[assignment]

LOCK = ".cancernet-lock"
"""In a partial folder: the file that its writer keeps locked for as long as it lives."""
ABANDONED_AFTER = 24 * 3600.0
"""Seconds after which a partial folder without a lock file is taken for a leftover; no packing takes that long."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write a file that replaces `path` when it is complete.

    A reader meets the old file or the new one, never a part; an error or an interruption leaves the old one. A link to
    a file stays a link.

    Args:
        path: The file; it need not exist yet, nor its folder.

    Yields:
        Where to write: a path of the same name in a temporary folder next to the file.

    Raises:
        InputError: The file cannot be written: the disk is full or read-only, or nothing was written.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "metrics.json") as partial:
    ...     _ = partial.write_text("{}")
    >>> [file.name for file in folder.iterdir()]
    ['metrics.json']
    """
    path = Path(path).resolve()
    with workplace(path) as place:
        yield place / path.name
        sync(place / path.name)  # or a power cut could leave the new name with an empty file
        (place / path.name).replace(path)
        sync(path.parent)


@contextmanager
def workplace(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`, to make it in; the folder above is made where there is none.

    Raises:
        InputError: The operating system refused something that was done there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _partial(path) as place:
            yield place
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> InputError:
    """Return the line for what the operating system refused."""
    reason = error.strerror or one_line(error)
    return InputError(f"{path}: cannot be written ({reason}); free its disk, or give a place that can be written")


def require_space(folder: Path, size: int) -> None:
    """Find out before a long work whether its results can be written; nothing stays behind.

    Args:
        folder: Where they will go; it need not exist yet.
        size: Their bytes, about.

    Raises:
        InputError: They cannot.
    """
    existing = next(place for place in (folder.resolve(), *folder.resolve().parents) if place.is_dir())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"\0")
        free = shutil.disk_usage(existing).free
    except OSError as error:
        raise cannot_write(folder, error) from error
    if free < size:
        needs = f"{size / 1e6:.1f} MB are needed and {free / 1e6:.1f} MB are free"
        raise InputError(f"{folder}: cannot be written ({needs}); free its disk, or give a place that can be written")


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Let one process at a time make `path`; another one says that it waits, and goes on when the first has ended.

    The lock is the operating system's, on a hidden file next to `path`: it holds across containers, and ends with its
    process. Where a file system has no locks, nobody waits.

    Raises:
        InputError: Nothing can be written there.
    """
    path = path.resolve()
    place = path.with_name(f".{path.name}.lock")
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = place.open("wb")
        except OSError as error:
            raise cannot_write(path, error) from error
        with lock:
            if _take_lock(lock, wait=False) is False:
                print(f"{path}: another process is making it; waiting for that", file=sys.stderr, flush=True)
                _take_lock(lock, wait=True)
            if not place.exists() or not os.path.samestat(place.stat(), os.fstat(lock.fileno())):
                continue  # the one before removed this file in the moment before it was locked
            try:
                yield
            finally:
                with suppress(OSError):  # Windows keeps what is open
                    place.unlink()
            return


@contextmanager
def new_folder(path: str | Path) -> Iterator[Path]:
    """Fill a folder that appears as `path` when it is complete.

    Args:
        path: The folder, absent or empty; the folder above it has to exist.

    Yields:
        An empty folder of the same name in a temporary folder next to it.

    Raises:
        OSError: A file or a folder that is not empty stands at `path` at the end; it stays as it is.
    """
    path = Path(path).resolve()
    with _partial(path) as place:
        folder = place / path.name
        folder.mkdir()
        yield folder
        sync(folder)
        if path.is_dir():
            path.rmdir()  # on Windows a rename onto an empty folder fails
        folder.replace(path)
        sync(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder at once: at no moment is half of it found under its name."""
    with _partial(path) as place:
        path.replace(place / path.name)


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """Make a temporary folder next to `path`, locked while it is in use and removed afterwards."""
    _remove_leftovers(path)
    place, lock = _make_locked(path)
    try:
        with lock:
            yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _make_locked(path: Path) -> tuple[Path, IO[bytes]]:
    while True:
        place = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
        lock = (place / LOCK).open("wb")
        _take_lock(lock, wait=True)
        if (place / LOCK).exists():  # or it was removed as a leftover in the moment before it was locked
            return place, lock
        lock.close()


def _remove_leftovers(path: Path) -> None:
    """Remove what killed writers of any file have left in the folder of `path`.

    A writer that lives holds the lock of its folder, in this container or on another machine that shares the disk.
    """
    for name in os.listdir(path.parent):  # noqa: PTH208
        place = path.parent / name
        hidden = name.startswith(".") and name.endswith(".partial")
        # Without a lock file only the name says whose it is; the second form is that of 0.1.
        its_own = (hidden and name.startswith(f".{path.name}.")) or name.startswith(f"{path.name}.partial-")
        if its_own or (hidden and (place / LOCK).exists()):
            with suppress(OSError):  # its writer may end at the same time
                _remove_if_abandoned(place)


def _remove_if_abandoned(place: Path) -> None:
    taken: bool | None = None
    if (place / LOCK).exists():
        with (place / LOCK).open("rb+") as lock:
            taken = _take_lock(lock, wait=False)
            if taken:
                shutil.rmtree(place, ignore_errors=True)
    if taken is None and time.time() - place.stat().st_mtime > ABANDONED_AFTER:
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink()


def _take_lock(file: IO[bytes], wait: bool) -> bool | None:
    """Lock a file until it is closed; False where another holds the lock, None where the file system has none."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> Path:
    """Write a text file atomically, and its folder where there is none.

    Returns:
        The path.

    Raises:
        InputError: The file cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
    return path


def write_json(path: Path, content: Mapping[str, Any]) -> Path:
    """Write a JSON file (see `write_text`); a number that is not finite becomes null."""
    return write_text(path, json.dumps(_without_nan(content), indent=2, ensure_ascii=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
