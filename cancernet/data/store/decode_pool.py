"""Decode a whole listing into the pixel file of a store, with all cores and in bounded memory."""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cancernet.data.archive.listing import Listing
from cancernet.data.processes import available_cores, start_pool
from cancernet.data.store.decode import PATCH_BYTES, SIDE, Scaling
from cancernet.data.store.decode_worker import Chunk, ChunkDecoder, Columns, decode_chunk, start_worker
from cancernet.errors import InputError

CHUNK = 256
"""Patches in a task: some 20 ms of work and 2 MB of memory."""

SMALLEST_SHARE = 1024
"""Patches that are worth starting a process for (it takes as long as decoding them)."""

_BLOCK = 1 << 22  # bytes read at a time where files are hashed or moved


def choose_workers(patches: int, workers: int | None) -> int:
    """Return the number of processes: the one asked for, or all cores but no more than the work is worth.

    Raises:
        InputError: The number asked for is below 1.

    >>> choose_workers(277_524, 4), choose_workers(100, None)
    (4, 1)
    """
    if workers is not None:
        if workers < 1:
            raise InputError(f"workers must be 1 or more, or left out for all cores; received {workers}")
        return workers
    return max(1, min(available_cores(), patches // SMALLEST_SHARE))


def decode_listing(
    listing: Listing, scaling: Scaling, images: Path, workers: int, progress: bool
) -> tuple[Columns, str]:
    """Decode every patch of a listing into `images`, a .npy file.

    The file ends with a row for each readable patch, in the listing's order.

    Args:
        listing: What to decode, in order.
        scaling: How images become patches.
        images: The file to write.
        workers: Processes; 1 decodes in this one.
        progress: Whether to show a progress bar.

    Returns:
        The columns, with a value for each row of the listing; the checksum of the finished file.
    """
    count = len(listing)
    start = _write_header(images, count)
    with images.open("r+b") as file:
        file.truncate(start + count * PATCH_BYTES)
    columns, first = Columns.zeros(count), 0
    checksum = hashlib.blake2b()
    buffer = memoryview(bytearray(CHUNK * PATCH_BYTES))
    with (
        images.open("rb", buffering=0) as written,
        tqdm(total=count, desc="packing", unit=" patches", disable=not progress, smoothing=0.05) as bar,
    ):
        checksum.update(written.read(start))
        for decoded in _decode_chunks(listing, scaling, images, start, workers):
            rows = slice(first, first + len(decoded.hash))
            first = rows.stop
            columns.hash[rows], columns.width[rows], columns.height[rows] = decoded.hash, decoded.width, decoded.height
            columns.reasons.update(decoded.reasons)
            # While the processes decode on, what they have written is still in the page cache.
            view = buffer[: len(decoded.hash) * PATCH_BYTES]
            written.readinto(view)
            checksum.update(view)
            bar.update(len(decoded.hash))
    if not columns.reasons:
        return columns, checksum.hexdigest()
    _compact(images, start, np.setdiff1d(np.arange(count), list(columns.reasons)))
    return columns, file_checksum(images)


def _write_header(images: Path, count: int) -> int:
    """Write the header of a .npy file of `count` patches; return its length in bytes."""
    if not images.exists():
        images.touch()
    with images.open("r+b") as file:
        shape = (count, SIDE, SIDE, 3)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return file.tell()


def _chunks(listing: Listing) -> Iterator[Chunk]:
    for first in range(0, len(listing), CHUNK):
        rows = range(first, min(first + CHUNK, len(listing)))
        twins = {
            row: tuple(f"{listing.source}/{name}" for name in listing.twins[row])
            for row in rows
            if row in listing.twins
        }
        yield Chunk(first, listing.place[first : first + CHUNK], twins)


def _decode_chunks(listing: Listing, scaling: Scaling, images: Path, start: int, workers: int) -> Iterator[Columns]:
    """Decode all chunks; yield their columns in order."""
    setup = (str(images), start, str(listing.source) if listing.kind == "zip" else None, scaling)
    if workers == 1:
        decoder = ChunkDecoder(*setup)
        try:
            yield from map(decoder, _chunks(listing))
        finally:
            decoder.close()
        return
    pool = start_pool(workers, start_worker, *setup)
    try:
        yield from _in_order(pool, listing, 4 * workers)
    except BrokenProcessPool as error:
        raise InputError(
            f"a process that packed {listing.source} was ended from outside (out of memory?); "
            "nothing was written; run it again, with fewer workers"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, listing: Listing, ahead: int) -> Iterator[Columns]:
    """Keep `ahead` chunks in work and yield the oldest, so that memory does not grow with the archive."""
    waiting: deque[Future[Columns]] = deque()
    for chunk in _chunks(listing):
        try:
            waiting.append(pool.submit(decode_chunk, chunk))
        except OSError as error:  # the pool is closing after a death, or no process can be started
            raise BrokenProcessPool(str(error)) from error
        if len(waiting) >= ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _compact(images: Path, start: int, keep: NDArray[np.int64]) -> None:
    """Move the rows to keep to the front, in their order, and shorten the file."""
    if _write_header(images, len(keep)) != start:
        raise AssertionError("NumPy pads its header so that a smaller count does not shorten it")
    block = _BLOCK // PATCH_BYTES
    with images.open("r+b") as file:
        pixels = np.memmap(file, np.uint8, "r+", start, (int(keep[-1]) + 1 if len(keep) else 1, PATCH_BYTES))
        for first in range(0, len(keep), block):
            rows = keep[first : first + block]
            pixels[first : first + len(rows)] = pixels[rows]  # the copy on the right is made first; rows move downwards
        pixels.flush()
        del pixels
        file.truncate(start + len(keep) * PATCH_BYTES)


def file_checksum(path: Path, progress: bool = False) -> str:
    """Hash a file: BLAKE2b, 128 hexadecimal digits."""
    checksum = hashlib.blake2b()
    size = path.stat().st_size
    with (
        path.open("rb", buffering=0) as file,
        tqdm(
            total=size, desc=f"verifying {path.name}", unit="B", unit_scale=True, delay=1, disable=not progress
        ) as bar,
    ):
        while block := file.read(_BLOCK):
            checksum.update(block)
            bar.update(len(block))
    return checksum.hexdigest()
