"""What files a source holds, without opening one of them: the central directory of a zip, the tree of a folder."""

import hashlib
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cancernet.data.store.decode import EMPTY, FILE_TOO_LARGE, LARGEST_FILE, UNREADABLE_FILE
from cancernet.data.store.decode_worker import DEFLATED, MEMBER, STORED
from cancernet.errors import InputError

_END = b"PK\x05\x06"
_END_64 = b"PK\x06\x06"
_LOCATOR_64 = b"PK\x06\x07"
_ENTRY = b"PK\x01\x02"
_UNSET_32 = 0xFFFFFFFF


@dataclass
class Contents:
    """The files of one source.

    `names` are relative, with slashes; `sizes` in bytes; `problems` tells, by index, what cannot be read and why;
    `members` (dtype `MEMBER`) says where each lies in a zip and is None for a folder.
    """

    names: list[str]
    sizes: NDArray[np.int64]
    problems: dict[int, str]
    fingerprint: str
    members: NDArray[np.void] | None = None


def scan_zip(path: Path) -> Contents:
    """List a zip from its central directory.

    The table is read as it stands: half a million entries as Python's `ZipInfo` objects take some 450 MB, as an array
    26 bytes each and the name.

    Raises:
        InputError: Where the file is no zip, is cut short, or its table is damaged.
    """
    directory, count, shift = _read_directory(path)
    members = np.zeros(count, MEMBER)
    names: list[str] = []
    problems: dict[int, str] = {}
    position = kept = 0
    for _ in tqdm(range(count), desc="listing", unit="file", unit_scale=True, delay=1, leave=False):
        if directory[position : position + 4] != _ENTRY or position + 46 > len(directory):
            raise _damaged(path)
        flags, method, _, _, crc, compressed, size, name_length, extra, comment, _, _, _, offset = struct.unpack_from(
            "<HHHHIIIHHHHHII", directory, position + 8
        )
        name_end = position + 46 + name_length
        raw = directory[position + 46 : name_end]
        if _UNSET_32 in (compressed, size, offset):
            fields = directory[name_end : name_end + extra]
            size, compressed, offset = _long_values(fields, size, compressed, offset)
        position = name_end + extra + comment
        if raw.endswith((b"/", b"\\")):
            continue  # a folder
        names.append(_decode_name(raw, flags))
        members[kept] = (offset + shift, compressed, size, crc, method, flags)
        problem = _member_problem(flags, method, size, compressed)
        if problem is not None:
            problems[kept] = problem
        kept += 1
    members = members[:kept]
    return Contents(names, members["size"], problems, hashlib.blake2b(directory).hexdigest(), members)


def fingerprint_zip(path: Path) -> str:
    """Hash the central directory, which holds every name, size and CRC; the patches are not read."""
    return hashlib.blake2b(_read_directory(path)[0]).hexdigest()


def _member_problem(flags: int, method: int, size: int, compressed: int) -> str | None:
    if flags & 1:
        return "encrypted in the zip"
    if method not in (STORED, DEFLATED):
        return "packed by a method other than stored and deflate"
    return _size_problem(max(size, compressed) if size else 0)


def _size_problem(size: int) -> str | None:
    if size == 0:
        return EMPTY
    return FILE_TOO_LARGE if size > LARGEST_FILE else None


def _decode_name(raw: bytes, flags: int) -> str:
    encoding = "utf-8" if flags & 0x800 else "cp437"
    return raw.decode(encoding, errors="backslashreplace").replace("\\", "/").removeprefix("./")


def _long_values(extra: bytes, size: int, compressed: int, offset: int) -> tuple[int, int, int]:
    """Take the values that need more than 32 bits from the zip64 extra field, in the order the format fixes."""
    position = 0
    while position + 4 <= len(extra):
        tag, length = struct.unpack_from("<HH", extra, position)
        if tag == 1:
            values = iter(struct.unpack_from(f"<{length // 8}Q", extra, position + 4))
            size, compressed, offset = (
                next(values, 0) if value == _UNSET_32 else value for value in (size, compressed, offset)
            )
            break
        position += 4 + length
    # An array of signed 64-bit numbers holds them; what claims more is nonsense and fails when it is read.
    limit = (1 << 62) - 1
    return min(size, limit), min(compressed, limit), min(offset, limit)


def _read_directory(path: Path) -> tuple[bytes, int, int]:
    """Find and read the central directory: its bytes, the number of entries, and what to add to each offset."""
    try:
        with path.open("rb") as file:
            return _find_directory(path, file)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path and its permissions") from error
    except (struct.error, ValueError) as error:
        raise _damaged(path) from error


def _find_directory(path: Path, file: BinaryIO) -> tuple[bytes, int, int]:
    length = file.seek(0, os.SEEK_END)
    tail_start = max(0, length - (22 + 0xFFFF + 20 + 56))
    file.seek(tail_start)
    tail = file.read()
    end = tail.rfind(_END)
    if end < 0 or end + 22 + int.from_bytes(tail[end + 20 : end + 22], "little") > len(tail):
        raise InputError(
            f"{path} is not a whole zip: its table of contents, the last thing in it, is missing "
            "(was the download cut short?); download it again"
        )
    count, size, offset = struct.unpack_from("<HII", tail, end + 10)
    directory_end = tail_start + end
    locator = tail.rfind(_LOCATOR_64, 0, end)
    if locator >= 0 and locator == end - 20:
        record = tail.rfind(_END_64, 0, locator)
        if record < 0:
            raise _damaged(path)
        count, size, offset = struct.unpack_from("<QQQ", tail, record + 32)
        directory_end = tail_start + record
    shift = directory_end - size - offset  # above 0 where something stands before the zip, as in self-extracting ones
    if shift < 0 or count * 46 > size:
        raise _damaged(path)
    file.seek(directory_end - size)
    directory = file.read(size)
    if len(directory) != size or (count and directory[:4] != _ENTRY):
        raise _damaged(path)
    return directory, count, shift


def _damaged(path: Path) -> InputError:
    return InputError(f"{path} is a damaged zip: its table of contents does not fit the file; download it again")


@dataclass
class _Walk:
    """State of a walk through a folder: what was found, and the folders already entered (links can form a ring)."""

    root: Path
    names: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)
    entered: set[tuple[int, int]] = field(default_factory=set)
    marks: "hashlib.blake2b" = field(default_factory=hashlib.blake2b)

    def add(self, name: str, size: int, time: int, problem: str | None) -> None:
        self.marks.update(f"{name}\0{size}\0{time}\n".encode("utf-8", "surrogateescape"))
        if problem is not None:
            self.problems[len(self.names)] = problem
        self.names.append(name)
        self.sizes.append(size)


def scan_folder(root: Path) -> Contents:
    """List a folder by names, sizes and times, in an order that does not depend on the disk.

    Links are followed: to files as files, to folders once.

    Raises:
        InputError: Where the folder cannot be read.
    """
    walk = _Walk(root)
    try:
        with os.scandir(root):
            pass
    except OSError as error:
        raise InputError(f"{root} cannot be read ({error.strerror}): check the path and its permissions") from error
    progress = tqdm(desc="listing", unit="file", unit_scale=True, delay=1, leave=False)
    with progress:
        for _ in _walk_folder(walk, str(root), ""):
            progress.update()
    return Contents(walk.names, np.array(walk.sizes, np.int64), walk.problems, walk.marks.hexdigest())


def _walk_folder(walk: _Walk, folder: str, prefix: str) -> Iterator[None]:
    """Add every file below `folder`, depth first, names sorted."""
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
        try:
            if entry.is_dir():
                yield from _walk_folder(walk, entry.path, name + "/")
                continue
            status = entry.stat()
            regular = stat.S_ISREG(status.st_mode)  # a pipe or device would block its reader for ever
            walk.add(name, status.st_size, status.st_mtime_ns, _size_problem(status.st_size) if regular else "no file")
        except OSError:
            walk.add(name, 0, 0, UNREADABLE_FILE)
        yield
