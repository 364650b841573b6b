"""Writing a store so that it is either whole or not there."""

import json
import os
import secrets
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from cancernet.data.archive.listing import Listing, Reject, count_reasons, fingerprint, list_archive
from cancernet.data.store.decode import CONFLICT, PATCH_BYTES, SIDE
from cancernet.data.store.decode_pool import Columns, choose_workers, decode_listing, file_checksum
from cancernet.data.store.publishing import OWNER, errors_of_disk, partial_folder, remove_stale, sync
from cancernet.data.store.store import (
    FORMAT,
    IMAGES,
    INDEX,
    MANIFEST,
    VERSION,
    PatchStore,
    open_store,
    read_manifest,
    source_name,
)
from cancernet.errors import InputError

_INDEX_BYTES = 150  # a row of the index at most, on disk
_SPARE_BYTES = 1 << 24  # manifest, rejects, and room for the file system itself
_PARENT_MEMORY, _WORKER_MEMORY, _ENTRY_MEMORY = 90 << 20, 50 << 20, 512  # measured, rounded up


def write_store(source: Path, output: Path, workers: int | None, progress: bool) -> PatchStore:
    """Pack `source` into `output`; see `cancernet.data.store.pack`."""
    if output.exists() or output.is_symlink():
        store = _reuse(source, output)
        if store is not None:
            return store
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{output} lies inside the archive {source}, which is only read: choose an output elsewhere")
    listing = list_archive(source)
    workers = choose_workers(len(listing), workers)
    with errors_of_disk(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(output)
        _check_resources(listing, output, workers, progress)
        with partial_folder(output) as partial:
            _fill(partial, listing, source_name(source), workers, progress)
            _publish(partial, output, listing.fingerprint)
    store = open_store(output)
    store.fresh = True
    return store


def _reuse(source: Path, output: Path) -> PatchStore | None:
    """Open what stands at `output` if it is this source's store; None where it may be replaced.

    Raises:
        InputError: Where it is anything else.
    """
    manifest = read_manifest(output) if output.is_dir() else None
    if manifest is None:
        raise InputError(f"{output} exists and is not a store: choose another output, or remove it first")
    if manifest.get("source", {}).get("fingerprint") != fingerprint(source):
        raise InputError(
            f"{output} is the store of another archive ({manifest.get('name')}), or of an earlier state of {source}: "
            "choose another output, or remove it first"
        )
    try:
        return open_store(output)
    except InputError as error:
        print(f"{error} (packing again)", file=sys.stderr)
        return None


def _fill(partial: Path, listing: Listing, name: str, workers: int, progress: bool) -> None:
    """Write the three files of the store, the manifest last, each on the disk before the next."""
    columns, checksum = decode_listing(listing, partial / IMAGES, workers, progress)
    seal_store(partial, listing, columns, checksum, name)


def seal_store(partial: Path, listing: Listing, columns: Columns, checksum: str, name: str) -> None:
    """Write what makes a folder with a pixel file a store: the index and, last, the manifest.

    Args:
        partial: The folder; the pixel file in it has one row for each readable one of the listing.
        listing: The patches, in order.
        columns: What decoding found.
        checksum: Of the pixel file.
        name: Of the source.

    Raises:
        InputError: Not one row was readable.
    """
    sync(partial / IMAGES)
    keep = np.ones(len(listing), bool)
    keep[list(columns.reasons)] = False
    if not keep.any():
        counts = ", ".join(f"{count:,} {reason}" for reason, count in Counter(columns.reasons.values()).most_common())
        raise InputError(f"{listing.source} holds no readable patch ({counts}): check that the download is whole")
    _write_index(partial / INDEX, listing, columns, keep)
    sync(partial / INDEX)
    manifest = _describe(listing, columns, keep, name)
    manifest["checksum"] = {IMAGES: checksum, INDEX: file_checksum(partial / INDEX)}
    manifest["bytes"] = {file: (partial / file).stat().st_size for file in (IMAGES, INDEX)}
    (partial / OWNER).unlink(missing_ok=True)
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    sync(partial / MANIFEST)
    sync(partial)


def _write_index(path: Path, listing: Listing, columns: Columns, keep: np.ndarray) -> None:
    import pyarrow
    from pyarrow import parquet

    def number(values: np.ndarray) -> pyarrow.Array:
        values = np.ascontiguousarray(values[keep])
        return pyarrow.Array.from_buffers(
            pyarrow.from_numpy_dtype(values.dtype), len(values), [None, pyarrow.py_buffer(values)]
        )

    def text(values: list[str]) -> pyarrow.Array:
        encoded = [values[row].encode() for row in np.flatnonzero(keep)]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
        buffers = [None, pyarrow.py_buffer(ends), pyarrow.py_buffer(b"".join(encoded))]
        return pyarrow.Array.from_buffers(pyarrow.string(), len(encoded), buffers)

    # Arrays are made from buffers because pyarrow.array() imports pandas, which takes a second, to ask about types.
    arrays = {
        "path": text(listing.path),
        "case": text(listing.case),
        "label": number(listing.label),
        "x": number(listing.x),
        "y": number(listing.y),
        "width": number(columns.width),
        "height": number(columns.height),
        "hash": number(columns.hash),
    }
    parquet.write_table(pyarrow.Table.from_arrays(list(arrays.values()), list(arrays)), path, compression="zstd")


def _describe(listing: Listing, columns: Columns, keep: np.ndarray, name: str) -> dict[str, Any]:
    """Count what the store holds and list what it leaves out."""
    rejects, lost_copies = list(listing.rejects), 0
    for row, reason in sorted(columns.reasons.items()):
        rejects.append(Reject(listing.path[row], reason))
        if reason == CONFLICT:  # found when the bytes were compared: the other copies stay out as well
            lost_copies += len(listing.twins[row])
            rejects.extend(Reject(twin, reason) for twin in listing.twins[row])
    patches, idc = int(keep.sum()), int(listing.label[keep].sum())
    width, height = columns.width[keep], columns.height[keep]
    cases = len({case for case, kept in zip(listing.case, keep, strict=True) if kept})
    return {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "synthetic": listing.synthetic,
        "source": {"kind": listing.kind, "name": listing.source.name, "fingerprint": listing.fingerprint},
        "patches": patches,
        "cases": cases,
        "audit": {
            "patches": patches,
            "cases": cases,
            "idc": idc,
            "benign": patches - idc,
            "prevalence": idc / patches,
            "edge_patches": int(((width < SIDE) | (height < SIDE)).sum()),
            "duplicates": listing.duplicates - lost_copies,
            "identical_images": patches - len(np.unique(columns.hash[keep])),
            "rejects": count_reasons(rejects),
        },
        "rejects": [reject._asdict() for reject in rejects],
    }


def _publish(partial: Path, output: Path, mark: str) -> None:
    """Rename the finished folder to its place; where another process was faster, its store stands."""
    if output.exists() and _is_damaged(output, mark):
        # Renamed before it is removed, so that at no moment half of it stands under the name of a store.
        retired = output.with_name(f"{output.name}.partial-{os.getpid()}-{secrets.token_hex(4)}")
        output.replace(retired)
        shutil.rmtree(retired, ignore_errors=True)
    try:
        partial.replace(output)
    except OSError:
        if not output.is_dir() or _is_damaged(output, mark):
            raise
    else:
        sync(output.parent)


def _is_damaged(output: Path, mark: str) -> bool:
    try:
        return bool(open_store(output).manifest["source"]["fingerprint"] != mark)
    except InputError:
        return True


def _check_resources(listing: Listing, output: Path, workers: int, progress: bool) -> None:
    """Say what disk and memory the packing takes, and stop where they are not there."""
    disk = len(listing) * (PATCH_BYTES + _INDEX_BYTES) + _SPARE_BYTES
    free = shutil.disk_usage(output.parent).free
    entries = len(listing) + listing.duplicates + len(listing.rejects)
    processes = workers if workers > 1 else 0
    memory = _PARENT_MEMORY + entries * _ENTRY_MEMORY + processes * _WORKER_MEMORY
    available = _available_memory()
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
    if available is not None and memory > available:
        raise InputError(
            f"packing {listing.source} with {workers} processes needs {_size(memory)} of memory, of which "
            f"{_size(available)} are free: close other programs or take fewer workers"
        )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 10**9 else f"{max(count, 10**6) / 1e6:.0f} MB"


def _available_memory() -> int | None:
    """Bytes of memory that can be had without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
