"""The work of one packing process: chunks of an archive read, decoded and written into a store.

The processes that pack an archive import this module and `decode` and little else, so both stay light.
"""

import os
import signal
import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import parent_process
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from cancernet.data.store.decode import (
    CONFLICT,
    DAMAGED_MEMBER,
    FILE_TOO_LARGE,
    LARGEST_FILE,
    PATCH_BYTES,
    SIDE,
    UNREADABLE_FILE,
    PatchError,
    decode_patch,
    pixel_hash,
)

MEMBER = np.dtype(
    [("offset", "<i8"), ("compressed", "<i8"), ("size", "<i8"), ("crc", "<u4"), ("method", "<u2"), ("flags", "<u2")]
)
"""Where one file lies in a zip: offset of its local header, bytes there and unpacked, CRC-32, method, flags."""

STORED, DEFLATED = 0, 8

_READ_BYTES = 1 << 15  # holds any patch, and is small enough that the allocator need not ask the system


def read_member(archive: BinaryIO, member: np.void) -> bytes:
    """Read one file of a zip by its place.

    Args:
        archive: The zip, opened for reading.
        member: A record of dtype `MEMBER`.

    Raises:
        PatchError: Where the place holds no such file or its CRC does not agree.
    """
    offset, compressed, size, crc, method, _ = member.item()
    if max(size, compressed) > LARGEST_FILE:
        raise PatchError(FILE_TOO_LARGE)
    archive.seek(offset)
    header = archive.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise PatchError(DAMAGED_MEMBER)
    archive.seek(sum(struct.unpack_from("<HH", header, 26)), os.SEEK_CUR)
    data = archive.read(compressed)
    if method == DEFLATED:
        try:
            data = zlib.decompressobj(-15).decompress(data, size + 1)
        except zlib.error as error:
            raise PatchError(DAMAGED_MEMBER) from error
    if len(data) != size or zlib.crc32(data) != crc:
        raise PatchError(DAMAGED_MEMBER)
    return data


@dataclass
class Chunk:
    """Consecutive rows of a store to be decoded: where each lies, and its further copies.

    `places` are records of dtype `MEMBER` for a zip and paths of files otherwise. `twins` has, for rows of a folder,
    the further files of the same name and size; they must hold the same bytes.
    """

    first: int
    places: NDArray[np.void] | Sequence[str]
    twins: dict[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class Decoded:
    """What became of a chunk: hash (uint64), width and height (int16) of each row; the reason where there is none."""

    first: int
    hash: NDArray[np.uint64]
    width: NDArray[np.int16]
    height: NDArray[np.int16]
    reasons: dict[int, str]


class ChunkDecoder:
    """Reads, decodes and writes chunks; each process has its own, with its own open files.

    Args:
        images: The store's pixel file, already of its full length; rows are written at their place.
        start: Bytes before the first row in it.
        archive: The zip, or None where the places are files.
    """

    def __init__(self, images: str, start: int, archive: str | None) -> None:
        self._images = Path(images).open("r+b", buffering=0)  # noqa: SIM115
        self._start = start
        self._archive = Path(archive).open("rb", buffering=8192) if archive is not None else None  # noqa: SIM115

    def close(self) -> None:
        """Close the files."""
        self._images.close()
        if self._archive is not None:
            self._archive.close()

    def __call__(self, chunk: Chunk) -> Decoded:
        """Decode the chunk and write its rows; unreadable ones stay zero and carry their reason."""
        count, places = len(chunk.places), chunk.places
        rows = np.zeros((count, SIDE, SIDE, 3), np.uint8)
        decoded = Decoded(
            chunk.first, np.zeros(count, np.uint64), np.zeros(count, np.int16), np.zeros(count, np.int16), {}
        )
        # In the order of the disk: a packed zip is then read forwards.
        order = np.argsort(places["offset"]) if isinstance(places, np.ndarray) else range(count)
        for i in order:
            try:
                rows[i], decoded.width[i], decoded.height[i] = decode_patch(self._read(chunk, int(i)))
            except PatchError as error:
                decoded.reasons[chunk.first + int(i)] = str(error)
            else:
                decoded.hash[i] = pixel_hash(rows[i])
        self._write(rows, chunk.first)
        return decoded

    def _read(self, chunk: Chunk, i: int) -> bytes:
        if self._archive is not None:
            return read_member(self._archive, chunk.places[i])  # type: ignore[arg-type]
        data = _read_file(str(chunk.places[i]))
        for twin in chunk.twins.get(chunk.first + i, ()):
            if _read_file(twin) != data:
                raise PatchError(CONFLICT)
        return data

    def _write(self, rows: NDArray[np.uint8], first: int) -> None:
        view = rows.data.cast("B")
        self._images.seek(self._start + first * PATCH_BYTES)
        while view:
            view = view[self._images.write(view) :]


def _read_file(path: str) -> bytes:
    """Read a file whole; by the bare system calls, as a file object for each of 277,524 costs a tenth of the time."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            blocks = [os.read(descriptor, _READ_BYTES)]
            while blocks[-1] and len(blocks) * _READ_BYTES <= LARGEST_FILE:
                blocks.append(os.read(descriptor, _READ_BYTES))
        finally:
            os.close(descriptor)
    except OSError as error:
        raise PatchError(UNREADABLE_FILE) from error
    return b"".join(blocks)


_decoder: ChunkDecoder | None = None


def start_worker(images: str, start: int, archive: str | None) -> None:
    """Set up a packing process: its files, and an end together with its parent."""
    global _decoder  # a process of a pool has no other place to keep what its tasks share
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent alone reacts to it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _decoder = ChunkDecoder(images, start, archive)


def _end_with_parent() -> None:
    """Leave when the parent is gone: a pool whose parent was killed would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def decode_chunk(chunk: Chunk) -> Decoded:
    """Decode one chunk in a packing process."""
    if _decoder is None:
        raise RuntimeError("decode_chunk runs in a process that start_worker has set up")
    return _decoder(chunk)
