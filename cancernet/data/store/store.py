"""Read a packed store: every patch of an archive, decoded, as one memory map with an index."""

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cancernet.data.archive.layout import UNLABELLED
from cancernet.data.store.decode import PATCH_BYTES, SIDE
from cancernet.data.store.decode_pool import file_checksum
from cancernet.errors import InputError

if TYPE_CHECKING:
    import pandas

FORMAT = "cancernet-store"
VERSION = 1
IMAGES, INDEX, MANIFEST = "images.npy", "index.parquet", "manifest.json"
COLUMNS = ("path", "case", "label", "x", "y", "width", "height", "hash")
"""Of the index."""


class PatchStore:
    """A packed store, opened for reading.

    Made by `open_store`, `pack` and `find_store`. It is pickled as its path, so workers of a data loader share the
    mapped pages instead of receiving a copy of two gigabytes.

    Attributes:
        path: The store's folder.
        manifest: Content of `manifest.json`.
        fresh: Whether this process has just packed it and computed its checksums.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any], fresh: bool = False) -> None:
        self.path = path
        self.manifest = dict(manifest)
        self.fresh = fresh

    def __len__(self) -> int:
        return int(self.manifest["patches"])

    def __repr__(self) -> str:
        return f"PatchStore({str(self.path)!r}, {len(self)} patches{', SYNTHETIC' * self.synthetic})"

    def __reduce__(self) -> tuple[Any, ...]:
        return open_store, (self.path,)

    @property
    def name(self) -> str:
        """Name of the archive, without folders."""
        return str(self.manifest["name"])

    @property
    def synthetic(self) -> bool:
        """Whether a program generated the patches."""
        return bool(self.manifest["synthetic"])

    @property
    def understood(self) -> str:
        """One line: where class and case come from, and what became of other sizes; empty in stores of version 0.1."""
        said = "; ".join(filter(None, (self.manifest.get("layout"), self.manifest.get("sizes"))))
        return f"{self.name}: read {len(self):,} images: {said}" if said else ""

    @cached_property
    def images(self) -> NDArray[np.uint8]:
        """All patches, mapped read-only: uint8 (N, 50, 50, 3), RGB."""
        return np.load(self.path / IMAGES, mmap_mode="r")

    @cached_property
    def case_code(self) -> NDArray[np.int32]:
        """Number of each patch's case, (N,), from 0 in the order of their first patches."""
        return self.index["case"].factorize()[0].astype(np.int32)

    @cached_property
    def index(self) -> "pandas.DataFrame":
        """One row a patch, in the order of `images`: path, case, label, x, y, width, height, hash.

        Raises:
            InputError: The table cannot be read or does not fit the images.
        """
        from cancernet.data.store.index import read_index  # pandas takes a second, which counts need not wait for

        try:
            table = read_index(self.path / INDEX)
        except Exception as error:
            raise _damaged(self.path, f"{INDEX} cannot be read") from error
        if len(table) != len(self):
            raise _damaged(self.path, f"{INDEX} has {len(table):,} rows for {len(self):,} patches")
        if missing := [name for name in COLUMNS if name not in table]:
            raise _damaged(self.path, f"{INDEX} lacks the column {', '.join(missing)}")
        if not table["label"].isin((0, 1, UNLABELLED)).all():
            raise _damaged(self.path, f"{INDEX} holds a label that is neither 0 nor 1")
        return table

    def gather(self, rows: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """Copy some patches into memory.

        Args:
            rows: Row numbers, integers of shape (B,), in any order and also repeated.

        Returns:
            uint8 (B, 50, 50, 3), C-contiguous.

        Raises:
            IndexError: A row is not in the store.
            InputError: The file has been cut since it was opened: to read it would end the process (SIGBUS).
        """
        size, packed = self.images._mmap.size(), self.manifest["bytes"][IMAGES]  # type: ignore[attr-defined]
        if size < packed:
            raise _damaged(self.path, f"{IMAGES} was cut while it was read, to {size:,} of {packed:,} bytes")
        return np.take(np.asarray(self.images), rows, axis=0)

    def verify(self, progress: bool = True) -> None:
        """Read both files and compare their checksums with those of the manifest.

        Raises:
            InputError: They differ.
        """
        for name in (IMAGES, INDEX):
            if file_checksum(self.path / name, progress) != self.manifest["checksum"][name]:
                raise _damaged(self.path, f"{name} is not what was packed (its checksum differs)")


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path} is a damaged store: {what}; remove this folder and pack the archive again")


def read_manifest(path: Path) -> dict[str, Any] | None:
    """Read the manifest of a store of any version; None where the folder is no store."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def open_store(path: str | Path) -> PatchStore:
    """Open a packed store and check cheaply that it is whole: format, version, sizes of its files.

    Raises:
        InputError: The path is no finished store, is of another version, or its files are not as packed.
    """
    path = Path(path)
    manifest = read_manifest(path)
    if manifest is None:
        what = "is not a finished store (it has no readable manifest.json)" if path.exists() else "does not exist"
        raise InputError(f"{path} {what}: give the folder that `prepare` printed, or pack the archive again")
    if manifest.get("version") != VERSION:
        raise InputError(
            f"{path} is a store of version {manifest.get('version')}, this program reads {VERSION}: "
            "remove this folder and pack the archive again"
        )
    try:
        sizes, patches = manifest["bytes"], int(manifest["patches"])
        for name in (IMAGES, INDEX):
            size = (path / name).stat().st_size
            if size != sizes[name]:
                raise _damaged(path, f"{name} has {size:,} bytes instead of {sizes[name]:,}")
        with (path / IMAGES).open("rb") as file:
            np.lib.format.read_magic(file)
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            if shape != (patches, SIDE, SIDE, 3) or dtype != np.uint8 or sizes[IMAGES] < patches * PATCH_BYTES:
                raise _damaged(path, f"{IMAGES} holds {shape} {dtype} for {patches:,} patches")
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"its files cannot be read ({error})") from error
    return PatchStore(path, manifest)
