"""Pack an archive: decode every patch once and write the store, which is there as a whole or not at all."""

import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from cancernet.data.archive.layout import UNKNOWN_CASE
from cancernet.data.archive.listing import Listing, Reject, count_reasons
from cancernet.data.archive.members import CONFLICT
from cancernet.data.archive.source import Root, Source
from cancernet.data.store.decode import PATCH_BYTES, Scaling
from cancernet.data.store.decode_pool import Columns, choose_workers, decode_listing, file_checksum
from cancernet.data.store.sizes import choose_scaling, describe_sizes
from cancernet.data.store.store import FORMAT, IMAGES, INDEX, MANIFEST, VERSION, PatchStore, open_store, read_manifest
from cancernet.errors import InputError
from cancernet.files import exclusive, new_folder, remove_folder, sync

_INDEX_BYTES = 150  # of a row of the index on disk, at most
_SPARE_BYTES = 1 << 24  # on disk, for the manifest, the rejects and the file system itself
_PROCESS_MEMORY, _ENTRY_MEMORY = 100 << 20, 512  # bytes, measured and rounded up


def pack(source: Root, output: str | Path, workers: int | None = None, progress: bool = True) -> PatchStore:
    """Decode an archive into a store; see `pack_source`."""
    return pack_source(Source(source), Path(output), workers, progress)


def pack_source(source: Source, output: Path, workers: int | None = None, progress: bool = True) -> PatchStore:
    """Decode an archive into a store at `output`.

    Where `output` already is the store of this very archive it is opened, or packed again where it is damaged.

    Args:
        source: The archive, scanned.
        output: The store's folder.
        workers: Processes; None takes all cores.
        progress: Whether to print what is needed and show a progress bar, on stderr.

    Raises:
        InputError: The archive cannot be used, `output` is something else, or disk or memory do not suffice.
    """
    store = _reuse(source, output)
    if store is not None:
        return store
    if source.kind == "folder" and output.resolve().is_relative_to(source.root.resolve()):
        raise InputError(
            f"{output} lies inside the archive {source.root}, which is only read: choose an output elsewhere"
        )
    with exclusive(output):
        # Another process may have packed it while this one waited.
        return _reuse(source, output, say=True) or _pack(source, output, workers, progress)


def _pack(source: Source, output: Path, workers: int | None, progress: bool) -> PatchStore:
    listing = source.list_patches()
    workers = choose_workers(len(listing), workers)
    try:
        _check_resources(listing, output, workers, progress)
        _write(listing, output, source.name, workers, progress)
    except OSError as error:
        raise InputError(
            f"cannot write the store {output} ({error.filename or output}: {error.strerror or error}): "
            "free the disk or choose another place (--output, or the cache folder)"
        ) from error
    store = open_store(output)
    store.fresh = True
    return store


def _reuse(source: Source, output: Path, say: bool = False) -> PatchStore | None:
    """Open what stands at `output` if it is this archive's store; None where nothing stands there or it is damaged.

    Raises:
        InputError: It is something else.
    """
    if not output.exists() and not output.is_symlink():
        return None
    manifest = read_manifest(output) if output.is_dir() else None
    if manifest is None:
        raise InputError(f"{output} exists and is not a store: choose another output, or remove it first")
    if manifest.get("source", {}).get("fingerprint") != source.fingerprint:
        raise InputError(
            f"{output} is the store of another archive ({manifest.get('name')}), or of an earlier state of "
            f"{source.root}: choose another output, or remove it first"
        )
    try:
        return open_store(output)
    except InputError as error:
        if say:
            print(f"{error} (packing again)", file=sys.stderr)
        return None


def _write(listing: Listing, output: Path, name: str, workers: int, progress: bool) -> None:
    try:
        with new_folder(output) as partial:
            scaling = choose_scaling(listing)
            columns, checksum = decode_listing(listing, scaling, partial / IMAGES, workers, progress)
            seal_store(partial, listing, columns, checksum, name, scaling)
            if read_manifest(output) is not None and not _is_store_of(listing, output):
                remove_folder(output)  # damaged
    except OSError:
        if not _is_store_of(listing, output):  # or another process was faster, and its store stands
            raise


def _is_store_of(listing: Listing, output: Path) -> bool:
    try:
        return bool(open_store(output).manifest["source"]["fingerprint"] == listing.fingerprint)
    except InputError:
        return False


def seal_store(
    partial: Path,
    listing: Listing,
    columns: Columns,
    checksum: str,
    name: str,
    scaling: Scaling = Scaling(),  # noqa: B008 (frozen)
) -> None:
    """Make a store of a folder with a pixel file: write the index and, last, the manifest.

    Args:
        partial: The folder; its pixel file has a row for each readable row of the listing.
        listing: The patches, in order.
        columns: What decoding found.
        checksum: Of the pixel file.
        name: Of the archive.
        scaling: How its images became patches.

    Raises:
        InputError: No row is readable.
    """
    sync(partial / IMAGES)
    keep = np.ones(len(listing), bool)
    keep[list(columns.reasons)] = False
    if not keep.any():
        counts = ", ".join(f"{count:,} {reason}" for reason, count in Counter(columns.reasons.values()).most_common())
        what = listing.place[0] if listing.kind == "files" and len(listing) == 1 else listing.source
        raise InputError(f"{what} holds no readable patch ({counts}): give whole images, each of one patch")
    _write_index(partial / INDEX, listing, columns, keep)
    sync(partial / INDEX)
    manifest = _describe(listing, columns, keep, name, scaling)
    manifest["checksum"] = {IMAGES: checksum, INDEX: file_checksum(partial / INDEX)}
    manifest["bytes"] = {file: (partial / file).stat().st_size for file in (IMAGES, INDEX)}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    sync(partial / MANIFEST)


def _write_index(path: Path, listing: Listing, columns: Columns, keep: np.ndarray) -> None:
    import pyarrow  # only a command that packs needs it
    from pyarrow import parquet

    def numbers(values: np.ndarray) -> pyarrow.Array:
        values = values[keep]
        kind = pyarrow.from_numpy_dtype(values.dtype)
        return pyarrow.Array.from_buffers(kind, len(values), [None, pyarrow.py_buffer(values)])

    def texts(values: list[str]) -> pyarrow.Array:
        encoded = [values[row].encode() for row in np.flatnonzero(keep)]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
        return pyarrow.StringArray.from_buffers(
            len(encoded), pyarrow.py_buffer(ends), pyarrow.py_buffer(b"".join(encoded))
        )

    # From buffers, as pyarrow.array() imports pandas: 0.2 s and 30 MB, a quarter of the time to pack 5,000 patches.
    table = {
        "path": texts(listing.path),
        "case": texts(listing.case),
        "label": numbers(listing.label),
        "x": numbers(listing.x),
        "y": numbers(listing.y),
        "width": numbers(columns.width),
        "height": numbers(columns.height),
        "hash": numbers(columns.hash),
    }
    parquet.write_table(pyarrow.Table.from_arrays(list(table.values()), list(table)), path, compression="zstd")


def _describe(listing: Listing, columns: Columns, keep: np.ndarray, name: str, scaling: Scaling) -> dict[str, Any]:
    """Count what the store holds and list what it leaves out."""
    rejects, lost_copies = list(listing.rejects), 0
    for row, reason in sorted(columns.reasons.items()):
        rejects.append(Reject(listing.path[row], reason))
        if reason == CONFLICT:  # found when the bytes were compared: the other copies stay out as well
            lost_copies += len(listing.twins[row])
            rejects.extend(Reject(twin, reason) for twin in listing.twins[row])
    patches, label = int(keep.sum()), listing.label[keep]
    idc, benign = int((label == 1).sum()), int((label == 0).sum())
    width, height = columns.width[keep], columns.height[keep]
    cases = len({case for case, kept in zip(listing.case, keep, strict=True) if kept} - {UNKNOWN_CASE})
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "synthetic": listing.synthetic,
        "layout": listing.layout,
        "sizes": describe_sizes(scaling, width, height),
        "mpp": scaling.mpp,
        "source": {
            "kind": listing.kind,
            "name": listing.source.name,
            "fingerprint": listing.fingerprint,
            "path": str(listing.source.resolve()),
        },
        "patches": patches,
        "cases": cases,
        "audit": {
            "patches": patches,
            "cases": cases,
            "idc": idc,
            "benign": benign,
            "unlabelled": patches - idc - benign,
            "prevalence": idc / (idc + benign) if idc + benign else None,
            "edge_patches": int(((width < (scaling.side or height)) | (height < (scaling.side or width))).sum()),
            "duplicates": listing.duplicates - lost_copies,
            "identical_images": patches - len(np.unique(columns.hash[keep])),
            "rejects": count_reasons(rejects),
        },
        "rejects": [reject._asdict() for reject in rejects],
    }


def _check_resources(listing: Listing, output: Path, workers: int, progress: bool) -> None:
    """Print how much disk and memory the packing takes, and stop where they do not suffice."""
    disk = len(listing) * (PATCH_BYTES + _INDEX_BYTES) + _SPARE_BYTES
    free = shutil.disk_usage(output.parent).free
    entries = len(listing) + listing.duplicates + len(listing.rejects)
    memory = (1 + workers) * _PROCESS_MEMORY + entries * _ENTRY_MEMORY
    available = psutil.virtual_memory().available
    if progress:
        print(
            f"packing {listing.source} ({len(listing):,} patches) into {output}: needs {_size(disk)} of disk "
            f"({_size(free)} free) and {_size(memory)} of memory; {workers} process{'es' * (workers > 1)}",
            file=sys.stderr,
            flush=True,
        )
    if disk > free:
        raise InputError(
            f"packing {listing.source} needs {_size(disk)} at {output.parent}, where {_size(free)} are free: "
            "free the disk or choose another place (--output, or the cache folder)"
        )
    if memory > available:
        raise InputError(
            f"packing {listing.source} with {workers} processes needs {_size(memory)} of memory, of which "
            f"{_size(available)} are free: close other programs or take fewer workers"
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 10**9 else f"{max(count, 10**6) / 1e6:.0f} MB"
