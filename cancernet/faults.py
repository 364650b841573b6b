"""Describe an error that no check foresaw: what it means to the person at the terminal, and the way out."""

import errno
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from cancernet.errors import DEBUG, FAULT, INPUT, InputError, brief

FULL_BELOW = 1 << 24
"""Bytes; a file system with less free counts as full."""

_ANOTHER_PLACE = "give a place that can be written"
_OF_THE_SYSTEM = {
    errno.ENOSPC: "free the disk, or give another place",
    errno.EDQUOT: "free your share of the disk, or give another place",
    errno.EACCES: f"check its permissions, or {_ANOTHER_PLACE}",
    errno.EPERM: f"check its permissions, or {_ANOTHER_PLACE}",
    errno.EROFS: _ANOTHER_PLACE,
    errno.ENOENT: "check the path; a file that was there has been moved or removed",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "check the path",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENOMEM: "close what else uses the memory, or give a smaller --data.batch_size",
    errno.EIO: "the disk or its connection fails: check them",
    errno.ESTALE: "the network disk has lost the file: run again",
}
"""Error of the operating system -> way out."""
_OF_PACKAGES = (
    (
        r"DataLoader worker .*(exited unexpectedly|killed by signal)",
        "a process that loads data has died ({line}), most often of too little memory: give --data.loader_workers 0",
    ),
    (r"shared memory|/torch_\d+", "shared memory has run out ({line}): give --data.loader_workers 0"),
    (
        r"^(OutOfMemoryError|MemoryError|ArrayMemoryError|ArrowMemoryError)|out of memory|allocate memory|bad_alloc",
        "memory has run out ({line}): give a smaller --data.batch_size, or close what else uses the memory",
    ),
    (
        r"^(Dist\w*Error|ProcessExitedException)|gloo|NCCL|TCPStore|Connection (closed|reset) by peer|Socket Timeout"
        r"|Application timeout|pair closure",
        "another process of this job has ended or cannot be reached ({line}): look for its own line, or for too little "
        "memory there; resume with --ckpt_path .../checkpoints/last.ckpt",
    ),
    (
        r"PytorchStreamWriter|inline_container\.cc|file write failed",
        "a file of weights could not be written ({line}): free the disk{full}, or give another place",
    ),
    (r"^(ModuleNotFoundError|PackageNotFoundError)", "{line}: install that package, or leave out what needs it"),
)
"""Pattern of `Name: message` -> what is said of such an error."""


def describe_fault(error: BaseException) -> tuple[int, str]:
    """Return the exit status and the line for an error of any package.

    An `InputError` that crossed from another process inside the text of a traceback keeps its status.

    >>> describe_fault(ValueError("no such thing"))
    (1, 'ValueError: no such thing; run again with --debug to see where')
    >>> describe_fault(PermissionError(13, "Permission denied", "/etc/cases.csv"))
    (1, '/etc/cases.csv: Permission denied; check its permissions, or give a place that can be written')
    """
    name, line = _name_and_line(error)
    if name == InputError.__name__:
        return INPUT, line
    if isinstance(error, OSError) and error.errno in _OF_THE_SYSTEM:
        return FAULT, _describe_system_error(error)
    for pattern, said in _OF_PACKAGES:
        if re.search(pattern, f"{name}: {line}", re.IGNORECASE if pattern[0] != "^" else 0):
            return FAULT, said.format(line=line, full=_full_places())
    return FAULT, f"{name}: {line}; run again with {DEBUG} to see where"


def _describe_system_error(error: OSError) -> str:
    # Writing to an open file names no file; then the places that are full are all that is known.
    place = "" if error.filename is None else f"{error.filename}: "
    full = _full_places() if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return f"{place}{error.strerror}{full}; {_OF_THE_SYSTEM[error.errno or 0]}"


def _full_places() -> str:
    """Name the folders that this process writes to without being told, where their file systems are full."""
    full = []
    # Python itself passes over a TMPDIR that is full; libraries do not.
    for place in dict.fromkeys([os.environ.get("TMPDIR", ""), tempfile.gettempdir(), str(Path.cwd())]):
        with suppress(OSError):
            if place and shutil.disk_usage(place).free < FULL_BELOW:
                full.append(place)
    return f" (full: {', '.join(full)})" if full else ""


def _name_and_line(error: BaseException) -> tuple[str, str]:
    """Return the name of an error and its message on one line, of another process's traceback the last line."""
    text = str(error)
    if "Traceback (most recent call last)" in text:
        last = text.rstrip().splitlines()[-1]
        if found := re.match(r"(?:[\w.]*\.)?(\w+): (.*)", last):
            return found[1], found[2]
    # torch puts a C++ stack below an empty line or these words.
    name = type(error).__name__
    return name, brief(re.split(r"\n\s*\n|Exception raised from|\n\s*frame #", text)[0] or name)
