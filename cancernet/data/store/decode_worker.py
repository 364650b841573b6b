"""Read, decode and write chunks of an archive in one process of a packing.

The processes import this module, `decode` and `cancernet.data.archive.members`, so all three stay light.
"""

import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import parent_process
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cancernet.data.archive.members import CONFLICT, PatchError, read_file, read_member
from cancernet.data.store.decode import PATCH_BYTES, SIDE, Scaling, decode_patch, pixel_hash


@dataclass
class Chunk:
    """Consecutive rows of a store to be decoded.

    Attributes:
        first: The first row.
        places: Where to read each row: records of dtype `MEMBER` for a zip, paths of files otherwise.
        twins: Row -> paths of further files of the same name and size, which must hold the same bytes.
    """

    first: int
    places: NDArray[np.void] | Sequence[str]
    twins: dict[int, tuple[str, ...]] = field(default_factory=dict)


@dataclass
class Columns:
    """What decoding adds to the rows of a listing, or of a chunk of it.

    Attributes:
        hash: (N,) uint64 hash of the pixels.
        width: (N,) int16 pixels before padding.
        height: (N,) int16, likewise.
        reasons: Row of the listing -> why it is unreadable; its other columns are 0.
    """

    hash: NDArray[np.uint64]
    width: NDArray[np.int16]
    height: NDArray[np.int16]
    reasons: dict[int, str]

    @classmethod
    def zeros(cls, count: int) -> "Columns":
        """Make columns of `count` rows that nothing has been decoded for yet."""
        return cls(np.zeros(count, np.uint64), np.zeros(count, np.int16), np.zeros(count, np.int16), {})


class ChunkDecoder:
    """Read, decode and write chunks; each process holds one, with its own open files.

    Args:
        images: The store's pixel file, already of its full length; rows are written at their place.
        start: Bytes before the first row in it.
        archive: The zip; None where the places are paths of files.
        scaling: How images become patches.
    """

    def __init__(self, images: str, start: int, archive: str | None, scaling: Scaling) -> None:
        self._scaling = scaling
        self._images = Path(images).open("r+b", buffering=0)  # noqa: SIM115
        self._start = start
        self._archive = Path(archive).open("rb", buffering=8192) if archive is not None else None  # noqa: SIM115

    def close(self) -> None:
        """Close the files."""
        self._images.close()
        if self._archive is not None:
            self._archive.close()

    def __call__(self, chunk: Chunk) -> Columns:
        """Decode the chunk and write its rows; an unreadable one is zero and its reason is returned."""
        count, places = len(chunk.places), chunk.places
        rows = np.zeros((count, SIDE, SIDE, 3), np.uint8)
        decoded = Columns.zeros(count)
        # In the order of the disk: a packed zip is then read forwards.
        order = np.argsort(places["offset"]) if isinstance(places, np.ndarray) else range(count)
        for i in order:
            try:
                rows[i], decoded.width[i], decoded.height[i] = decode_patch(self._read(chunk, int(i)), self._scaling)
            except PatchError as error:
                decoded.reasons[chunk.first + int(i)] = str(error)
            else:
                decoded.hash[i] = pixel_hash(rows[i])
        self._write(rows, chunk.first)
        return decoded

    def _read(self, chunk: Chunk, i: int) -> bytes:
        if self._archive is not None:
            return read_member(self._archive, chunk.places[i])  # type: ignore[arg-type]
        data = read_file(str(chunk.places[i]))
        for twin in chunk.twins.get(chunk.first + i, ()):
            if read_file(twin) != data:
                raise PatchError(CONFLICT)
        return data

    def _write(self, rows: NDArray[np.uint8], first: int) -> None:
        view = rows.data.cast("B")
        self._images.seek(self._start + first * PATCH_BYTES)
        while view:
            view = view[self._images.write(view) :]


_decoder: ChunkDecoder | None = None


def start_worker(images: str, start: int, archive: str | None, scaling: Scaling) -> None:
    """Set up a decode worker: open its files and let it end when its parent ends."""
    global _decoder  # a process of a pool has no other place to keep what its tasks share
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent alone reacts to it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _decoder = ChunkDecoder(images, start, archive, scaling)


def _end_with_parent() -> None:
    """Exit when the parent is gone: the workers of a parent that was killed would wait for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def decode_chunk(chunk: Chunk) -> Columns:
    """Decode one chunk in a decode worker."""
    if _decoder is None:
        raise RuntimeError("decode_chunk runs in a process that start_worker has set up")
    return _decoder(chunk)
