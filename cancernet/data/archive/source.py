"""Open an archive of any kind: a zip read in place, a folder, image files, or a CSV table.

The archive is read once; its kind, fingerprint and listing all come from that one scan.
"""

import glob
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from cancernet.data.archive.layout import IMAGE_ENDINGS
from cancernet.data.archive.listing import SYNTHETIC_MARK, Listing, select, show
from cancernet.data.archive.scan import Contents, fingerprint_zip, scan_files, scan_folder, scan_zip
from cancernet.data.archive.table import TABLE_ENDINGS, list_table
from cancernet.errors import InputError

Root = str | Path | Sequence[str]
"""What a user gives as data: a path, a pattern, or several of these."""

_ADVICE = (
    "give a zip or a folder of patches (as Kaggle's, or in folders benign and malignant), images, or a CSV with the "
    "columns path, label, case"
)
_TABLE_ADVICE = (
    "correct these rows: path is relative to the table's folder, label 1 for IDC and 0 for benign, case not empty"
)


class Source:
    """An archive, scanned once.

    Attributes:
        root: Path of the archive; of image files the folder that holds them all.
        kind: "zip", "folder", "files" or "csv".
        fingerprint: 128 hexadecimal digits (BLAKE2b) that tell the archive from any other and from its own later
            states: of a zip's central directory (names, CRCs, sizes); of a folder's or of files' names, sizes and
            times; of a table's bytes and the sizes and times of its files; and of the given scale. No patch is read
            for it.
        name: Name of the archive, without folders and ending.

    Args:
        root: Path of a zip, a folder, an image or a table, a pattern such as "tiles/*.png", or a list of images,
            folders and patterns.
        columns: For a table: path, label, case, x or y -> name of the column that holds it.
        mpp: Micrometres a pixel, where known.

    Raises:
        InputError: The root does not exist, cannot be read, or is of no known kind.
    """

    def __init__(self, root: Root, columns: Mapping[str, str] | None = None, mpp: float | None = None) -> None:
        if mpp is not None and not 0 < mpp < math.inf:
            raise InputError(f"data.mpp: expected micrometres a pixel, more than 0, got {mpp}")
        self.mpp = mpp
        paths = find_paths(root)
        self.root = named = paths[0]
        self.kind = _find_kind(paths[0]) if len(paths) == 1 else "files"
        self._contents: Contents | None = None
        self._table: Listing | None = None
        if columns and self.kind != "csv":
            raise InputError(f"data.columns goes with a CSV table, and {self.root} is none: leave it out")
        if self.kind == "zip":
            self.fingerprint = fingerprint_zip(self.root)
        elif self.kind == "folder":
            self._contents, self.fingerprint = scan_folder(self.root)
        elif self.kind == "files":
            _require_images(paths)
            self.root = Path(os.path.commonpath([path.absolute().parent for path in paths]))
            self._contents, self.fingerprint = scan_files(self.root, paths)
        else:
            self._table = list_table(self.root, columns)
            self.fingerprint = self._table.fingerprint
        if mpp is not None:
            self.fingerprint = hashlib.blake2b(f"{self.fingerprint} {mpp}".encode()).hexdigest()
        named = (named if len(paths) == 1 else self.root).resolve()
        self.name = (named.name if named.is_dir() else named.stem) or "archive"

    def list_patches(self) -> Listing:
        """List the patches, from what was scanned.

        Raises:
            InputError: The zip is damaged, or the archive holds no patch.
        """
        if self._table is not None:
            listing = self._table
        elif self._contents is None:
            listing = select(self.root, self.fingerprint, scan_zip(self.root))
        else:
            above = self.root.resolve()
            # The root may itself be a case or a class, so its own name counts as a folder above the patches.
            listing = select(self.root, self.fingerprint, self._contents, above.parts[1:])
            listing.synthetic |= any((folder / SYNTHETIC_MARK).exists() for folder in above.parents[:2])
            listing.kind = self.kind
        listing.fingerprint, listing.mpp = self.fingerprint, self.mpp
        if not len(listing):
            advice = _TABLE_ADVICE if self.kind == "csv" else _ADVICE
            raise InputError(f"{self.root} holds no patch: {_describe_rejects(listing)}; {advice}")
        return listing


def find_paths(root: Root) -> list[Path]:
    """Return the paths that a root stands for.

    Raises:
        InputError: One does not exist.
    """
    paths: list[Path] = []
    for given in [root] if isinstance(root, str | Path) else root:
        path = Path(given).expanduser()
        if glob.has_magic(str(given)) and not path.exists():
            found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
            if not found:
                raise InputError(f"{given} matches nothing: check the pattern")
            paths.extend(map(Path, found))
        else:
            paths.append(path)
    if not paths:
        raise InputError(f"data.root is an empty list: {_ADVICE}")
    for path in paths:
        if not path.exists():
            raise InputError(f"{path} does not exist: check the path{'' if path.suffix else f', or {_ADVICE}'}")
    return paths


def _require_images(paths: list[Path]) -> None:
    for path in paths:
        if len(paths) > 1 and not path.is_dir() and path.suffix.lower() not in IMAGE_ENDINGS:
            raise InputError(f"{path} is one of several roots, and neither an image nor a folder: give it by itself")


def _find_kind(root: Path) -> str:
    if root.is_dir():
        return "folder"
    if root.suffix.lower() in TABLE_ENDINGS:
        return "csv"
    try:
        with root.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise InputError(f"{root} cannot be read ({error.strerror}): check its permissions") from error
    if start == b"PK" or root.suffix.lower() == ".zip":
        return "zip"
    if root.suffix.lower() in IMAGE_ENDINGS:
        return "files"
    raise InputError(f"{root} is neither a zip, a folder, an image nor a .csv table: {_ADVICE}")


def _describe_rejects(listing: Listing) -> str:
    rejects = listing.rejects
    if not rejects:
        return "it is empty"
    examples = ", ".join(f"{show(reject.path)} ({reject.reason})" for reject in rejects[:3])
    return f"found {len(rejects):,} other file{'s'[: len(rejects) > 1]}, such as {examples}"
