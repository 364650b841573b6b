"""Decode the bytes of one image file to a patch.

The decode workers import this module, so it needs nothing but NumPy, Pillow and the standard library.
"""

import hashlib
import io
import struct
import threading
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cancernet.data.archive.members import EMPTY, PatchError
from cancernet.data.pixels import NO_IMAGE, TRUNCATED, read_rgb

SIDE = 50
"""Height and width of a patch in pixels."""

PATCH_BYTES = SIDE * SIDE * 3
"""Bytes of one patch in a store."""

ARCHIVE_MPP = 4.0
"""Micrometres a pixel of the archive, about."""
LARGEST_SIDE = 1024
"""Pixels; a larger image is no patch but a region, and would lose most of what it shows."""

TOO_SMALL = "smaller than half a patch"
REGION = f"larger than {LARGEST_SIDE}x{LARGEST_SIDE} pixels, so a region, which `cancernet map` takes"

_PNG = b"\x89PNG\r\n\x1a\n"
_PLAIN_RGB = (8, 2, 0, 0, 0)  # bit depth, colour type, compression, filter, not interlaced
_CHANGING = (b"eXIf", b"tRNS")  # chunks that rotate an image or make some of its colours transparent


class _Canvases(threading.local):
    """Images that Pillow decodes into, by size and for each thread: a new one for each patch costs 10 us."""

    def __init__(self) -> None:
        self._images: dict[tuple[int, int], Image.Image] = {}

    def of_size(self, size: tuple[int, int]) -> Image.Image:
        if size not in self._images:
            self._images[size] = Image.new("RGB", size)
        return self._images[size]


_canvases = _Canvases()


@dataclass(frozen=True)
class Scaling:
    """How images become patches.

    Attributes:
        side: Height and width in pixels of a whole image: a smaller one comes from the edge of a slide and is padded, a
            larger one is refused. None where each image is whole by itself.
        mpp: Micrometres a pixel, by which images are scaled to `ARCHIVE_MPP`. None where unknown: whole images are then
            resized to the size of a patch.
    """

    side: int | None = SIDE
    mpp: float | None = None

    def check_size(self, width: int, height: int) -> None:
        """Refuse what has no size or not that of a patch.

        Raises:
            PatchError: The reason.
        """
        if width < 1 or height < 1:
            raise PatchError(NO_IMAGE)
        if self.side is not None and max(width, height) > self.side:
            raise PatchError(f"larger than {self.side}x{self.side} pixels")
        if max(width, height) > LARGEST_SIDE:
            raise PatchError(REGION)
        # At the edge of a slide, in a grid of known side, a patch may be any smaller.
        scale = 1.0 if self.mpp is None else self.mpp / ARCHIVE_MPP
        if self.side is None and min(width, height) * scale < SIDE / 2:
            raise PatchError(TOO_SMALL)

    def apply(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Make a patch, uint8 (50, 50, 3), of an image, uint8 (height, width, 3)."""
        height, width = pixels.shape[:2]
        if self.mpp is None:
            side = max(width, height) if self.side is None else self.side
            return _resize(_pad(pixels, side), SIDE, SIDE)
        scale = self.mpp / ARCHIVE_MPP
        pixels = _resize(pixels, max(1, round(width * scale)), max(1, round(height * scale)))
        top, left = (max(0, (length - SIDE) // 2) for length in pixels.shape[:2])
        return _pad(pixels[top : top + SIDE, left : left + SIDE], SIDE)


def _pad(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    if (height, width) == (side, side):
        return pixels
    return np.pad(pixels, ((0, side - height), (0, side - width), (0, 0)), mode="edge")


def _resize(pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Resample bilinearly, averaging where the image becomes smaller."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


def decode_patch(data: bytes, scaling: Scaling = Scaling()) -> tuple[NDArray[np.uint8], int, int]:
    """Decode one image and bring it to the size of a patch.

    A smaller image (at the right and lower edge of a slide) is padded on the right and below by repeating its last
    column and row. Other kinds of pixels become 8-bit RGB (see `pixels.to_rgb`).

    Args:
        data: The whole file.
        scaling: How images of other sizes become patches; by default nothing is stretched, and none is larger.

    Returns:
        The patch, uint8 of shape (50, 50, 3), RGB; the image's own width and height in pixels.

    Raises:
        PatchError: The bytes are no whole image, or the image is too large or too small. The size is checked before
            any pixel is decoded.

    >>> file = io.BytesIO()
    >>> Image.new("RGB", (42, 50), "white").save(file, "PNG")
    >>> patch, width, height = decode_patch(file.getvalue())
    >>> patch.shape, width, height
    ((50, 50, 3), 42, 50)
    """
    if not data:
        raise PatchError(EMPTY)
    pixels = _decode_png(data, scaling) if data.startswith(_PNG) else None
    if pixels is None:
        pixels = read_rgb(io.BytesIO(data), scaling.check_size)
    height, width = pixels.shape[:2]
    return scaling.apply(pixels), width, height


def _decode_png(data: bytes, scaling: Scaling) -> NDArray[np.uint8] | None:
    """Check every chunk of a PNG file and decode the plain kind (8-bit RGB, as the whole archive is).

    Pillow checks no CRC of the pixel data when it reads a file, and reading one takes a third longer than handing the
    pixel data to its decoder. Returns None for other kinds of PNG, which are whole and left to Pillow.
    """
    kind: tuple[int, ...]
    position, compressed, kind, size = len(_PNG), [], (), (0, 0)
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
            scaling.check_size(width, height)
        elif name == b"IDAT":
            compressed.append(data[start:end])
        elif name in _CHANGING:
            kind = ()
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


def pixel_hash(patch: NDArray[np.uint8]) -> int:
    """Hash the pixels of a padded patch: BLAKE2b, 8 bytes, as an unsigned integer.

    >>> pixel_hash(np.zeros((50, 50, 3), np.uint8))
    3651757733590307463
    """
    return int.from_bytes(hashlib.blake2b(np.ascontiguousarray(patch).data, digest_size=8).digest(), "little")
