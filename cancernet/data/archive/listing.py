"""Which patches an archive holds: the Kaggle zip read in place, the unpacked folder, or a table of one's own cohort.

Nothing is decoded and nothing is dropped silently: every file is a patch, a further copy of one (the tree stands twice
in the archive), or a reject with its reason.
"""

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cancernet.data.archive.scan import Contents, fingerprint_zip, scan_folder, scan_zip
from cancernet.data.store.decode import CONFLICT
from cancernet.errors import InputError

SYNTHETIC_MARK = "SYNTHETIC.json"
"""A file of this name marks an archive as drawn by a program."""

FOREIGN = "foreign file"
SYSTEM = "file of the operating system"
UNNAMED = "name is not <case>_idx5_x<X>_y<Y>_class<0|1>.png"
WRONG_CLASS = "folder of the class contradicts the name"
WRONG_CASE = "folder of the case contradicts the name"
WRONG_FOLDER = "not in folders <case>/<class>"

_NAME = re.compile(r"(?P<case>[^/]+)_idx\d+_x(?P<x>\d{1,9})_y(?P<y>\d{1,9})_class(?P<label>[01])\.png", re.I | re.A)
_SYSTEM_NAMES = {"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db"}
_ADVICE = "give the Kaggle zip, its unpacked folder (<case>/<class>/<case>_idx5_x<X>_y<Y>_class<class>.png) or a CSV"


class Reject(NamedTuple):
    """A file that is left out, and why."""

    path: str
    reason: str


@dataclass
class Listing:
    """The patches of a source, sorted by (case, y, x, path), and what is left out.

    `place` says where each patch lies: records of dtype `MEMBER` in a zip, paths of files otherwise. `twins` has the
    further copies in a folder, whose bytes are to be compared when they are read, as (path in the source, file) by
    row. `x` and `y` are int32 pixels of the slide at the archive's scale, -1 where unknown; `label` is int8.
    """

    source: Path
    kind: str
    fingerprint: str
    synthetic: bool
    path: list[str]
    case: list[str]
    label: NDArray[np.int8]
    x: NDArray[np.int32]
    y: NDArray[np.int32]
    place: NDArray[np.void] | list[str]
    duplicates: int
    rejects: list[Reject]
    twins: dict[int, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.path)


def source_kind(root: Path) -> str:
    """Tell what a path is: "zip", "folder" or "csv".

    Raises:
        InputError: Where it does not exist or is none of them.
    """
    if not root.exists():
        raise InputError(f"{root} does not exist: check the path, or {_ADVICE}")
    if root.is_dir():
        return "folder"
    if root.suffix.lower() == ".csv":
        return "csv"
    try:
        with root.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise InputError(f"{root} cannot be read ({error.strerror}): check its permissions") from error
    if start[:2] == b"PK" or root.suffix.lower() == ".zip":
        return "zip"
    raise InputError(f"{root} is neither a zip, a folder nor a .csv table: {_ADVICE}")


def fingerprint(root: Path) -> str:
    """Tell a source from any other and from its own later states, without reading its patches.

    Returns:
        128 hexadecimal digits: for a zip the hash of its central directory (names, CRCs, sizes), for a folder of
        names, sizes and times, for a table of its bytes and of the sizes and times of the files it names.
    """
    kind = source_kind(root)
    if kind == "zip":
        return fingerprint_zip(root)
    if kind == "folder":
        return scan_folder(root).fingerprint
    from cancernet.data.archive.table import list_table

    return list_table(root).fingerprint


def list_archive(root: Path) -> Listing:
    """List the patches of a zip, a folder or a table.

    Raises:
        InputError: Where the source does not exist, is damaged, or holds no patch.
    """
    kind = source_kind(root)
    if kind == "csv":
        from cancernet.data.archive.table import list_table

        listing = list_table(root)
    elif kind == "zip":
        listing = _select(root, kind, scan_zip(root), ())
    else:
        # The folder given may itself be a case or a class, so its own name counts as a folder above the patches.
        listing = _select(root, kind, scan_folder(root), root.resolve().parts[1:])
        listing.synthetic |= any((above / SYNTHETIC_MARK).exists() for above in root.resolve().parents[:2])
    if not len(listing):
        raise InputError(f"{root} holds no patch: {_describe_rejects(listing.rejects)}; {_ADVICE}")
    return listing


def _describe_rejects(rejects: list[Reject]) -> str:
    if not rejects:
        return "it is empty"
    examples = ", ".join(f"{show(reject.path)} ({reject.reason})" for reject in rejects[:3])
    return f"found {len(rejects):,} other file{'s'[: len(rejects) > 1]}, such as {examples}"


def show(path: str) -> str:
    """Make a name from an archive fit for a terminal and for UTF-8: what does not print is written as an escape."""
    if path.isprintable():
        return path
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in path)


class _Selection:
    """Patches by name while the files of a source go by, one after the other."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.kept: dict[str, int] = {}  # name without folders -> index of the copy that counts
        self.copies: dict[str, list[int]] = {}  # name -> further copies, equal as far as can be told
        self.conflicts: dict[str, list[int]] = {}

    def add(self, index: int, name: str) -> None:
        first = self.kept.get(name)
        if name in self.conflicts:
            self.conflicts[name].append(index)
        elif first is None:
            self.kept[name] = index
        elif not self._equal(first, index):
            self.conflicts[name] = [first, *self.copies.pop(name, ()), index]
        else:
            path, other = self.contents.names[first], self.contents.names[index]
            if (len(other), other) < (len(path), path):
                first, index = index, first
                self.kept[name] = first
            self.copies.setdefault(name, []).append(index)

    def _equal(self, one: int, other: int) -> bool:
        members = self.contents.members
        if members is not None and members["crc"][one] != members["crc"][other]:
            return False
        return bool(self.contents.sizes[one] == self.contents.sizes[other])


def _select(root: Path, kind: str, contents: Contents, above: tuple[str, ...]) -> Listing:
    """Apply the archive's rules to its files; `above` are the folders over the source's own top."""
    selection = _Selection(contents)
    rejects: list[Reject] = []
    synthetic = False
    for index, path in enumerate(contents.names):
        *folders, name = path.split("/")
        if name == SYNTHETIC_MARK:
            synthetic = True
            continue
        reason = _reason_to_reject(folders, name, above) or contents.problems.get(index)
        if reason is None:
            selection.add(index, name)
        else:
            rejects.append(Reject(show(path), reason))
    for name, indices in selection.conflicts.items():
        del selection.kept[name]
        rejects.extend(Reject(show(contents.names[index]), CONFLICT) for index in indices)
    return _arrange(root, kind, contents, selection, rejects, synthetic)


def _reason_to_reject(folders: list[str], name: str, above: tuple[str, ...]) -> str | None:
    if name.startswith(".") or name.lower() in _SYSTEM_NAMES or any(_hidden(folder) for folder in folders):
        return SYSTEM
    match = _NAME.fullmatch(name)
    if match is None:
        return UNNAMED if name.lower().endswith(".png") else FOREIGN
    place = (*above, *folders)
    if len(place) < 2 or place[-1] not in ("0", "1"):
        return WRONG_FOLDER
    if place[-1] != match["label"]:
        return WRONG_CLASS
    return WRONG_CASE if place[-2] != match["case"] else None


def _hidden(folder: str) -> bool:
    return folder.lower() in _SYSTEM_NAMES or (folder.startswith(".") and folder not in (".", ".."))


def _arrange(
    root: Path, kind: str, contents: Contents, selection: _Selection, rejects: list[Reject], synthetic: bool
) -> Listing:
    """Order the selected files as rows of a store."""
    rows = []
    for name, index in selection.kept.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise AssertionError(f"{name} was selected without its name being read")
        rows.append((sys.intern(match["case"]), int(match["y"]), int(match["x"]), contents.names[index], index, name))
    rows.sort()
    order = np.array([row[4] for row in rows], np.int64)
    listing = Listing(
        source=root,
        kind=kind,
        fingerprint=contents.fingerprint,
        synthetic=synthetic,
        path=[show(row[3]) for row in rows],
        case=[show(row[0]) for row in rows],
        label=np.array([int(row[3][-5]) for row in rows], np.int8),
        x=np.array([row[2] for row in rows], np.int32),
        y=np.array([row[1] for row in rows], np.int32),
        place=contents.members[order] if contents.members is not None else [f"{root}/{row[3]}" for row in rows],
        duplicates=sum(map(len, selection.copies.values())),
        rejects=rejects,
    )
    if contents.members is None:
        copies = ((i, selection.copies.get(row[5])) for i, row in enumerate(rows))
        listing.twins = {i: [contents.names[index] for index in indices] for i, indices in copies if indices}
    return listing


def count_reasons(rejects: Iterable[Reject]) -> dict[str, int]:
    """Count rejects by reason, the most frequent first."""
    counts: dict[str, int] = {}
    for reject in rejects:
        counts[reject.reason] = counts.get(reject.reason, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
