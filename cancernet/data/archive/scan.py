"""Scan what files an archive holds without opening one of them: the directory of a zip, the tree of a folder."""

import hashlib
import os
import stat
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cancernet.data.archive.members import EMPTY, FILE_TOO_LARGE, LARGEST_FILE, MEMBER, UNREADABLE_FILE
from cancernet.errors import InputError

_TAIL_BYTES = 22 + 0xFFFF + 20 + 56  # end record, longest comment, zip64 locator and zip64 end record


@dataclass
class Contents:
    """The files of an archive.

    Attributes:
        names: Relative to the archive, with slashes.
        sizes: (N,) bytes.
        problems: Index -> why this file cannot be used.
        members: (N,) records of dtype `MEMBER` for a zip; None for a folder.
    """

    names: list[str]
    sizes: NDArray[np.int64]
    problems: dict[int, str]
    members: NDArray[np.void] | None = None


def fingerprint_zip(path: Path) -> str:
    """Hash the central directory of a zip, which holds every name, size and CRC.

    It is found and read without parsing its entries: for 555,048 of them that takes seconds in `zipfile`, and a command
    that opens a store packed before needs the hash alone.

    Returns:
        128 hexadecimal digits (BLAKE2b).

    Raises:
        InputError: The file is no zip or is cut short.
    """
    try:
        with path.open("rb") as file:
            return hashlib.blake2b(_read_directory(file)).hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error
    except (struct.error, ValueError) as error:
        raise _damaged_zip(path) from error


def _read_directory(file: BinaryIO) -> bytes:
    length = file.seek(0, os.SEEK_END)
    start = file.seek(max(0, length - _TAIL_BYTES))
    tail = file.read()
    end = tail.rindex(b"PK\x05\x06")
    (size,) = struct.unpack_from("<I", tail, end + 12)
    if tail[max(0, end - 20) : end].startswith(b"PK\x06\x07"):
        end = tail.rindex(b"PK\x06\x06", 0, end - 20)
        (size,) = struct.unpack_from("<Q", tail, end + 40)
    if size > start + end:
        raise ValueError("the directory is larger than what precedes its end")
    file.seek(start + end - size)
    return file.read(size)


def scan_zip(path: Path) -> Contents:
    """List the files of a zip.

    Raises:
        InputError: The file is no zip, is cut short, or its directory is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.filename.endswith(("/", "\\"))]
        places = ((e.header_offset, e.compress_size, e.file_size, e.CRC, e.compress_type) for e in entries)
        members = np.fromiter(places, MEMBER, len(entries))
    except OSError as error:
        raise _unreadable(path, error) from error
    # `zipfile` raises all of these on a damaged directory; UnicodeDecodeError is a ValueError.
    except (zipfile.BadZipFile, NotImplementedError, OverflowError, struct.error, ValueError) as error:
        raise _damaged_zip(path) from error
    if (members["offset"] < 0).any():  # bytes are missing before the directory
        raise _damaged_zip(path)
    names = [entry.filename.replace("\\", "/").removeprefix("./") for entry in entries]
    problems = {i: problem for i, entry in enumerate(entries) if (problem := _entry_problem(entry)) is not None}
    return Contents(names, members["size"], problems, members)


def _entry_problem(entry: zipfile.ZipInfo) -> str | None:
    if entry.flag_bits & 1:
        return "encrypted in the zip"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "packed by a method other than stored and deflate"
    return size_problem(max(entry.file_size, entry.compress_size) if entry.file_size else 0)


def size_problem(size: int) -> str | None:
    """Return why a file of this many bytes cannot be a patch; None where it can.

    >>> size_problem(0), size_problem(7000)
    ('empty file', None)
    """
    if size == 0:
        return EMPTY
    return FILE_TOO_LARGE if size > LARGEST_FILE else None


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be read ({error.strerror or error}): check the path and its permissions")


def _damaged_zip(path: Path) -> InputError:
    return InputError(
        f"{path} is a damaged zip: the table of contents at its end is missing or does not fit the file "
        "(was the download cut short?); download it again"
    )


@dataclass
class _Walk:
    """A walk through a folder: what was found, and the folders already entered (links can form a ring)."""

    names: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)
    entered: set[tuple[int, int]] = field(default_factory=set)
    fingerprint: "hashlib.blake2b" = field(default_factory=hashlib.blake2b)

    def add(self, name: str, size: int, time: int, problem: str | None) -> None:
        self.fingerprint.update(f"{name}\0{size}\0{time}\n".encode("utf-8", "surrogateescape"))
        if problem is not None:
            self.problems[len(self.names)] = problem
        self.names.append(name)
        self.sizes.append(size)

    def add_file(self, name: str, file: "os.DirEntry[str] | Path") -> None:
        try:
            status = file.stat()
        except OSError:
            self.add(name, 0, 0, UNREADABLE_FILE)
            return
        regular = stat.S_ISREG(status.st_mode)  # reading a pipe or a device would block for ever
        self.add(name, status.st_size, status.st_mtime_ns, size_problem(status.st_size) if regular else "no file")


def scan_folder(root: Path) -> tuple[Contents, str]:
    """List the files below a folder, in an order that does not depend on the disk.

    Links are followed: to files as files, to folders once.

    Returns:
        The files, and a hash (BLAKE2b, 128 hexadecimal digits) of their names, sizes and times.

    Raises:
        InputError: The folder cannot be read.
    """
    walk = _Walk()
    try:
        os.listdir(root)  # noqa: PTH208  a folder below that cannot be read is a reject, the root is an error
    except OSError as error:
        raise _unreadable(root, error) from error
    for _ in tqdm(_walk_folder(walk, str(root), ""), "listing", unit="file", unit_scale=True, delay=1, leave=False):
        pass
    return Contents(walk.names, np.array(walk.sizes, np.int64), walk.problems), walk.fingerprint.hexdigest()


def scan_files(root: Path, paths: list[Path]) -> tuple[Contents, str]:
    """List some files, and those below some folders, relative to a folder that holds them all; see `scan_folder`."""
    walk = _Walk()
    for path in sorted({path.absolute() for path in paths}):
        name = path.relative_to(root).as_posix()
        if path.is_dir():
            for _ in _walk_folder(walk, str(path), name + "/"):
                pass
        else:
            walk.add_file(name, path)
    return Contents(walk.names, np.array(walk.sizes, np.int64), walk.problems), walk.fingerprint.hexdigest()


def _walk_folder(walk: _Walk, folder: str, prefix: str) -> Iterator[None]:
    """Add every file below `folder`, depth first, names sorted; yield after each."""
    try:
        status = os.stat(folder)  # noqa: PTH116  strings: a Path for each of 555,048 files costs seconds
        if (status.st_dev, status.st_ino) in walk.entered:
            return
        walk.entered.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        walk.add(prefix or ".", 0, 0, "folder cannot be read")
        return
    for entry in found:
        name = prefix + entry.name
        if _is_folder(entry):
            yield from _walk_folder(walk, entry.path, name + "/")
        else:
            walk.add_file(name, entry)
            yield


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a ring of links
        return False
