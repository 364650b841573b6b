"""From the bytes of one image to a patch, and the work of one packing process.

The processes that pack an archive import this module and little else, so it stays light: NumPy, Pillow and the standard
library.
"""

import hashlib
import io
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
from PIL import Image

SIDE = 50
"""Height and width of a patch in pixels."""

PATCH_BYTES = SIDE * SIDE * 3
"""Bytes of one patch in a store."""

LARGEST_FILE = 1 << 24
"""Bytes; no image of 50x50 pixels is larger, so what claims to be is not read (a zip can claim terabytes)."""

MEMBER = np.dtype(
    [("offset", "<i8"), ("compressed", "<i8"), ("size", "<i8"), ("crc", "<u4"), ("method", "<u2"), ("flags", "<u2")]
)
"""Where one file lies in a zip: offset of its local header, bytes there and unpacked, CRC-32, method, flags."""

STORED, DEFLATED = 0, 8

NO_IMAGE = "no readable image"
TRUNCATED = "truncated or damaged image"
TOO_LARGE = f"larger than {SIDE}x{SIDE} pixels"
FILE_TOO_LARGE = f"file larger than {LARGEST_FILE >> 20} MB"
EMPTY = "empty file"
DAMAGED_MEMBER = "damaged in the zip"
UNREADABLE_FILE = "file cannot be read"
CONFLICT = "two different patches under one name"

_READ_BYTES = 1 << 15  # holds any patch, and is small enough that the allocator need not ask the system

_PNG = b"\x89PNG\r\n\x1a\n"
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_PLAIN_RGB = (8, 2, 0, 0, 0)  # bit depth, colour type, compression, filter, not interlaced


class _Canvases(threading.local):
    """Images that Pillow decodes into, by size and for each thread: a new one for each patch costs 10 us."""

    def __init__(self) -> None:
        self._images: dict[tuple[int, int], Image.Image] = {}

    def of_size(self, size: tuple[int, int]) -> Image.Image:
        if size not in self._images:
            self._images[size] = Image.new("RGB", size)
        return self._images[size]


_canvases = _Canvases()


class PatchError(Exception):
    """The bytes are not a patch; the message is the reason, without the path, so that reasons can be counted."""


def decode_patch(data: bytes) -> tuple[NDArray[np.uint8], int, int]:
    """Decode one image and pad it to the size of a patch.

    Images that are smaller (the right and lower edge of a slide) are padded on the right and below by repetition of
    their last column and row; nothing is ever stretched. Palettes, grey and 16 bits a channel become 8-bit RGB, and
    what is transparent becomes white, which is what a slide shows where there is nothing.

    Args:
        data: The whole file.

    Returns:
        The patch, uint8 of shape (50, 50, 3), RGB; the image's own width and height in pixels.

    Raises:
        PatchError: Where the bytes are no whole image or the image is larger than a patch. The size is looked at
            before any pixel is decoded.
    """
    if not data:
        raise PatchError(EMPTY)
    pixels = _decode_png(data) if data.startswith(_PNG) else None
    if pixels is None:
        pixels = _decode_with_pillow(data)
    height, width = pixels.shape[:2]
    if (height, width) == (SIDE, SIDE):
        return pixels, width, height
    return np.pad(pixels, ((0, SIDE - height), (0, SIDE - width), (0, 0)), mode="edge"), width, height


def _check_size(width: int, height: int) -> None:
    if width < 1 or height < 1:
        raise PatchError(NO_IMAGE)
    if width > SIDE or height > SIDE:
        raise PatchError(TOO_LARGE)


def _decode_png(data: bytes) -> NDArray[np.uint8] | None:
    """Check every chunk of a PNG file and decode the plain kind (8-bit RGB, as the whole archive is).

    Pillow's own path from a file checks no CRC of the pixel data and costs a third more than handing those data to its
    decoder. Returns None for the other kinds of PNG, which are whole but left to Pillow.
    """
    position, compressed, kind, size = len(_PNG), [], (0,) * 5, (0, 0)
    while True:
        if position + 12 > len(data):
            raise PatchError(TRUNCATED)
        length, name = struct.unpack_from(">I4s", data, position)
        start, end = position + 8, position + 8 + length
        if end + 4 > len(data) or zlib.crc32(data[start - 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise PatchError(TRUNCATED)
        if name == b"IHDR" and length == 13:
            width, height, *rest = struct.unpack_from(">II5B", data, start)
            size, kind = (width, height), tuple(rest)
            _check_size(width, height)
        elif name == b"IDAT":
            compressed.append(data[start:end])
        elif name == b"IEND":
            break
        position = end + 4
    if kind != _PLAIN_RGB:
        return None
    canvas = _canvases.of_size(size)
    try:
        canvas.frombytes(b"".join(compressed), "zip", "RGB", 0)
    except (ValueError, OSError, SyntaxError) as error:
        raise PatchError(TRUNCATED) from error
    return np.frombuffer(canvas.tobytes(), np.uint8).reshape(size[1], size[0], 3)


def _decode_with_pillow(data: bytes) -> NDArray[np.uint8]:
    """Decode any of the accepted formats to RGB of its own size, uint8 (height, width, 3)."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(*image.size)
            image.load()
            if image.mode.startswith(("I", "F")):
                return _eight_bits(np.asarray(image))
            if image.mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info:
                image = image.convert("RGBA")  # type: ignore[assignment]
            if image.mode == "RGBA":
                white = Image.new("RGBA", image.size, "white")
                return np.array(Image.alpha_composite(white, image).convert("RGB"))
            return np.array(image.convert("RGB"))
    except PatchError:
        raise
    # Pillow raises errors of many kinds on hostile bytes, and one bad file must not end the packing of 277,524.
    except Exception as error:
        known = data.startswith((_PNG, b"\xff\xd8", b"BM", b"II*\0", b"MM\0*", b"RIFF"))
        raise PatchError(TRUNCATED if known else NO_IMAGE) from error


def _eight_bits(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Turn grey of 16 bits (0 to 65,535) into RGB by its upper byte; Pillow's own conversion clips at 255."""
    if grey.dtype.kind == "f" or grey.min() < 0 or grey.max() > 0xFFFF:
        raise PatchError(NO_IMAGE)
    return np.repeat((grey.astype(np.uint16) >> 8).astype(np.uint8)[:, :, None], 3, axis=2)


def pixel_hash(patch: NDArray[np.uint8]) -> int:
    """Hash the pixels of a padded patch: BLAKE2b, 8 bytes, as an unsigned integer."""
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(patch).data, digest_size=8).digest(), "little")


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
