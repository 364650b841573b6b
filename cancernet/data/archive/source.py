"""Open an archive of any kind: the Kaggle zip read in place, its unpacked folder, or a CSV table.

The archive is read once; its kind, fingerprint and listing all come from that one scan.
"""

from pathlib import Path

from cancernet.data.archive.listing import SYNTHETIC_MARK, Listing, select, show
from cancernet.data.archive.scan import Contents, fingerprint_zip, scan_folder, scan_zip
from cancernet.data.archive.table import list_table
from cancernet.errors import InputError

_ADVICE = "give the Kaggle zip, its unpacked folder (<case>/<class>/<case>_idx5_x<X>_y<Y>_class<class>.png) or a CSV"


class Source:
    """An archive, scanned once.

    Attributes:
        root: Path of the archive.
        kind: "zip", "folder" or "csv".
        fingerprint: 128 hexadecimal digits (BLAKE2b) that tell the archive from any other and from its own later
            states: of a zip's central directory (names, CRCs, sizes); of a folder's names, sizes and times; of a
            table's bytes and the sizes and times of its files. No patch is read for it.

    Raises:
        InputError: The root does not exist, cannot be read, or is of no known kind.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self.kind = _find_kind(self.root)
        self._contents: Contents | None = None
        self._table: Listing | None = None
        if self.kind == "zip":
            self.fingerprint = fingerprint_zip(self.root)
        elif self.kind == "folder":
            self._contents, self.fingerprint = scan_folder(self.root)
        else:
            self._table = list_table(self.root)
            self.fingerprint = self._table.fingerprint

    @property
    def name(self) -> str:
        """Name of the archive, without folders and ending."""
        root = self.root.resolve()
        return (root.name if root.is_dir() else root.stem) or "archive"

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
        if not len(listing):
            raise InputError(f"{self.root} holds no patch: {_describe_rejects(listing)}; {_ADVICE}")
        return listing


def _find_kind(root: Path) -> str:
    if not root.exists():
        raise InputError(f"{root} does not exist: check the path, or {_ADVICE}")
    if root.is_dir():
        return "folder"
    if root.suffix.lower() == ".csv":
        return "csv"
    try:
        with root.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise InputError(f"{root} cannot be read ({error.strerror}): check its permissions") from error
    if start == b"PK" or root.suffix.lower() == ".zip":
        return "zip"
    raise InputError(f"{root} is neither a zip, a folder nor a .csv table: {_ADVICE}")


def _describe_rejects(listing: Listing) -> str:
    rejects = listing.rejects
    if not rejects:
        return "it is empty"
    examples = ", ".join(f"{show(reject.path)} ({reject.reason})" for reject in rejects[:3])
    return f"found {len(rejects):,} other file{'s'[: len(rejects) > 1]}, such as {examples}"
