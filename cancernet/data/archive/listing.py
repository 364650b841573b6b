"""List the patches among the files of an archive, whatever its layout (see `layout`).

Nothing is decoded and nothing is dropped silently: every file is a patch, a further copy of one (the Kaggle zip holds
its tree twice), or a reject with its reason.
"""

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cancernet.data.archive.layout import IMAGE_ENDINGS, UNKNOWN_CASE, UNLABELLED, Folders, parse_name, read_class
from cancernet.data.archive.members import CONFLICT
from cancernet.data.archive.scan import Contents
from cancernet.errors import printable

SYNTHETIC_MARK = "SYNTHETIC.json"
"""A file of this name marks an archive as synthetic."""

FOREIGN = "foreign file"
SYSTEM = "file of the operating system"
UNNAMED = "name is not <case>_idx5_x<X>_y<Y>_class<0|1>.png"
WRONG_CLASS = "folder of the class contradicts the name"
WRONG_CASE = "folder of the case contradicts the name"
NO_CLASS = "no folder names its class, as those of the others do"
INNER_ZIP = "another zip: unpack it, or give it by itself"

_SYSTEM_NAMES = {"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db"}


class Reject(NamedTuple):
    """A file that is left out, and why."""

    path: str
    reason: str


@dataclass
class Listing:
    """The patches of an archive, sorted by (case, y, x, path), and what is left out.

    Attributes:
        source: Path of the archive.
        kind: Kind of the archive: "zip", "folder", "files" or "csv".
        fingerprint: Of the archive, 128 hexadecimal digits.
        synthetic: Whether a program generated the patches.
        path: Path of each patch within the archive.
        case: Case of each patch; `UNKNOWN_CASE` where it is not known.
        label: (N,) int8, 1 IDC, 0 benign, `UNLABELLED` where it is not known.
        x: (N,) int32 pixels of the slide at the archive's scale, -1 where unknown.
        y: (N,) int32, likewise.
        place: Where to read each patch: records of dtype `MEMBER` in a zip, paths of files otherwise.
        duplicates: Number of further copies, counted once.
        rejects: What is left out.
        twins: Row -> further copies in a folder (paths within the archive); their bytes are compared when read.
        layout: What was understood: where class and case come from.
        mpp: Micrometres a pixel, as the user gave them.
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
    layout: str = ""
    mpp: float | None = None

    def __len__(self) -> int:
        return len(self.path)


class _Patch(NamedTuple):
    """An image; sorts in the order of a listing."""

    case: str
    y: int
    x: int
    path: str
    file: int
    label: int


class _Selection:
    """The patch that counts for each name, while the files of an archive are added one after the other."""

    def __init__(self, contents: Contents) -> None:
        self.contents = contents
        self.kept: dict[str, _Patch] = {}  # Kaggle's name without folders, or any other path -> the copy that counts
        self.copies: dict[str, list[_Patch]] = {}  # name -> further copies, equal as far as can be told
        self.conflicts: dict[str, list[_Patch]] = {}

    def offer(self, name: str, patch: _Patch, reason: str | None, rejects: list[Reject]) -> None:
        """Add an image, or reject it for a reason: the one given, or what was found when the archive was scanned."""
        reason = reason or self.contents.problems.get(patch.file)
        if reason is None:
            self._add(name, patch)
        else:
            rejects.append(Reject(show(patch.path), reason))

    def _add(self, name: str, patch: _Patch) -> None:
        first = self.kept.get(name)
        if name in self.conflicts:
            self.conflicts[name].append(patch)
        elif first is None:
            self.kept[name] = patch
        elif not self._equal(first.file, patch.file):
            self.conflicts[name] = [first, *self.copies.pop(name, ()), patch]
        else:
            # The shorter path counts: that of the tree which is not wrapped in another folder.
            self.kept[name], copy = sorted((first, patch), key=lambda each: (len(each.path), each.path))
            self.copies.setdefault(name, []).append(copy)

    def _equal(self, one: int, other: int) -> bool:
        members = self.contents.members
        if members is not None and members["crc"][one] != members["crc"][other]:
            return False
        return bool(self.contents.sizes[one] == self.contents.sizes[other])


def select(root: Path, fingerprint: str, contents: Contents, above: tuple[str, ...] = ()) -> Listing:
    """Select the patches among the files of a zip or a folder.

    Args:
        root: Path of the archive.
        fingerprint: Its fingerprint.
        contents: Its files.
        above: Names of the folders above the archive's own top.
    """
    found = _sort_files(contents)
    folders = Folders({_folder(patch.path) for patch in (*found.named, *found.others)})
    selection, rejects = _Selection(contents), found.rejects
    cases = {patch.case for patch in found.named}
    for patch in found.named:
        reason = _contradiction(patch, folders, cases, above)
        selection.offer(patch.path.rpartition("/")[2], patch, reason, rejects)
    others = [patch._replace(label=folders.label.get(_folder(patch.path), UNLABELLED)) for patch in found.others]
    by_name = len(found.named) >= len(others)
    unlabelled = sum(patch.label == UNLABELLED for patch in others)
    stray = NO_CLASS if 2 * unlabelled < len(others) + len(found.named) else None
    for patch in others:
        patch = patch._replace(case=folders.case[_folder(patch.path)])
        reason = UNNAMED if by_name else stray if patch.label == UNLABELLED else None
        selection.offer(patch.path, patch, reason, rejects)
    for name, patches in selection.conflicts.items():
        del selection.kept[name]
        rejects.extend(Reject(show(patch.path), CONFLICT) for patch in patches)
    names = sorted(selection.kept, key=selection.kept.__getitem__)
    patches = [selection.kept[name] for name in names]
    members, order = contents.members, np.array([patch.file for patch in patches], np.int64)
    copies = selection.copies if members is None else {}  # CRCs have been compared in a zip, a folder has none
    return Listing(
        source=root,
        kind="folder" if members is None else "zip",
        fingerprint=fingerprint,
        synthetic=found.synthetic,
        path=[show(patch.path) for patch in patches],
        case=[show(patch.case) for patch in patches],
        label=np.array([patch.label for patch in patches], np.int8),
        x=np.array([patch.x for patch in patches], np.int32),
        y=np.array([patch.y for patch in patches], np.int32),
        place=[f"{root}/{patch.path}" for patch in patches] if members is None else members[order],
        duplicates=sum(map(len, selection.copies.values())),
        rejects=rejects,
        twins={row: [copy.path for copy in copies[name]] for row, name in enumerate(names) if name in copies},
        layout="class and case from the names" if by_name else folders.describe({patch.case for patch in patches}),
    )


@dataclass
class _Found:
    """The files of an archive: images with Kaggle's names, other images, and what is no image."""

    named: list[_Patch] = field(default_factory=list)
    others: list[_Patch] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    synthetic: bool = False


def _sort_files(contents: Contents) -> _Found:
    found = _Found()
    for index, path in enumerate(contents.names):
        *folders, name = path.split("/")
        ending = name[name.rfind(".") :].lower()
        if name == SYNTHETIC_MARK:
            found.synthetic = True
        elif name.startswith(".") or name.lower() in _SYSTEM_NAMES or any(_hidden(folder) for folder in folders):
            found.rejects.append(Reject(show(path), SYSTEM))
        elif ending not in IMAGE_ENDINGS:
            found.rejects.append(Reject(show(path), INNER_ZIP if ending == ".zip" else FOREIGN))
        elif (said := parse_name(name)) is not None:
            found.named.append(_Patch(sys.intern(said.case), said.y, said.x, path, index, said.label))
        else:
            found.others.append(_Patch(UNKNOWN_CASE, -1, -1, path, index, UNLABELLED))
    return found


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _contradiction(patch: _Patch, folders: Folders, cases: set[str], above: tuple[str, ...]) -> str | None:
    """Return which folder of an image says something else than its name; None where none does."""
    place = ("", "", *above, *patch.path.split("/")[:-1])
    parent, holder = place[-1], place[-2]
    if parent in ("0", "1") and (parent != patch.case or holder == patch.case):
        label = int(parent)
    else:
        label = folders.label.get(_folder(patch.path), patch.label)
        holder = parent if read_class(parent) is None else holder
    if label != patch.label:
        return WRONG_CLASS
    return WRONG_CASE if holder != patch.case and holder in cases else None


def _hidden(folder: str) -> bool:
    return folder.lower() in _SYSTEM_NAMES or (folder.startswith(".") and folder not in (".", ".."))


def count_reasons(rejects: Iterable[Reject]) -> dict[str, int]:
    """Count rejects by reason, the most frequent first.

    >>> count_reasons([Reject("a.txt", "foreign file"), Reject("b.png", "empty file"), Reject("c", "foreign file")])
    {'foreign file': 2, 'empty file': 1}
    """
    return dict(Counter(reject.reason for reject in rejects).most_common())


def show(path: str) -> str:
    r"""Escape what does not print in a name from an archive, which makes it safe for a terminal and for UTF-8.

    >>> show("9000/1/\x1b[31m.png")
    '9000/1/\\x1b[31m.png'
    """
    return printable(path)
