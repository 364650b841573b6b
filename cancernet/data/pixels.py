"""Turn images of any kind into 8-bit RGB: grey, palettes, transparency, CMYK, 16 bits, embedded rotation.

The decode workers import this module, so it needs nothing but NumPy, Pillow and the standard library.
"""

import warnings
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from cancernet.data.archive.members import PatchError

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras and scanners store in files of 16 bits."""

NO_IMAGE = "no readable image"
TRUNCATED = "truncated or damaged image"
BOMB = "an image of more than 178 million pixels"
OTHER_DEPTH = "pixels are fractions, negative or above 16 bits"

_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"BM", b"II*\0", b"MM\0*", b"RIFF")
_OTHER_BYTES = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "LA;16B": "RGBA",  # the four bytes of a pixel, as they are
}
"""How Pillow reads pixels of 16 bits, of which it keeps the upper byte -> how it reads the lower byte."""


def read_rgb(file: BinaryIO, check_size: Callable[[int, int], None] | None = None) -> NDArray[np.uint8]:
    """Decode an image file to 8-bit RGB; see `to_rgb` for what becomes of other kinds of pixels.

    Args:
        file: Opened for reading; PNG, JPEG, TIFF, BMP or WebP, of which the first image counts.
        check_size: Takes width and height in pixels before any pixel is decoded, and raises to refuse them.

    Returns:
        uint8 (height, width, 3).

    Raises:
        PatchError: The file is no image, is truncated, has more pixels than fit into memory with ease, or a kind of
            pixels that has no range; the message is the reason, without the file's name.

    >>> import io
    >>> file = io.BytesIO()
    >>> Image.new("L", (3, 2), 7).save(file, "TIFF")
    >>> read_rgb(file)[0].tolist()
    [[7, 7, 7], [7, 7, 7], [7, 7, 7]]
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of what is refused or harmless here
            with Image.open(file, formats=FORMATS) as image:
                if check_size is not None:
                    check_size(*image.size)
                deep = bool(_raw_modes(image) & _OTHER_BYTES.keys())
                image.load()
                return to_rgb(_join_bytes(image, file) if deep else image)
    except (PatchError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise PatchError(BOMB) from error
    # Pillow raises errors of many kinds on hostile bytes, and one bad file must not end the reading of 277,524.
    except Exception as error:
        file.seek(0)
        raise PatchError(TRUNCATED if file.read(8).startswith(_STARTS) else NO_IMAGE) from error


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Convert an image in memory to 8-bit RGB.

    Transparent pixels become white, as glass is on a slide. Grey of 16 bits is scaled by the fewest of 8, 10, 12, 14 or
    16 bits that hold its largest value: cameras of 12 bits write files of 16, and the brightest pixel of stained tissue
    is well above a quarter of white. A rotation in the file's EXIF data is carried out.

    Args:
        image: Of any mode.

    Returns:
        uint8 (height, width, 3).

    Raises:
        PatchError: The pixels are fractions, negative or above 16 bits, so their range is unknown.

    >>> to_rgb(Image.fromarray(np.array([[0, 4095]], np.uint16)))[0].tolist()
    [[0, 0, 0], [255, 255, 255]]
    >>> to_rgb(Image.new("RGBA", (1, 1), (9, 9, 9, 0)))[0].tolist()
    [[255, 255, 255]]
    """
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        grey = np.asarray(image)
        if grey.dtype.kind == "f" or grey.min() < 0 or grey.max() > 0xFFFF:
            raise PatchError(OTHER_DEPTH)
        return np.repeat(_eight_bits(grey.astype(np.uint16))[:, :, None], 3, axis=2)
    if image.mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def _raw_modes(image: Image.Image) -> set[str]:
    """Return how Pillow is going to read the pixels of an opened file."""
    arguments = (tile.args for tile in getattr(image, "tile", ()))
    return {str(given[0] if isinstance(given, tuple) else given) for given in arguments}


def _join_bytes(image: Image.Image, file: BinaryIO) -> Image.Image:
    """Scale pixels of 16 bits by their range; Pillow keeps their upper byte alone, so it reads the file twice."""
    file.seek(0)
    with Image.open(file, formats=FORMATS) as again:
        grey = _raw_modes(again) == {"LA;16B"}
        tiles = []
        for tile in again.tile:
            raw, *rest = tile.args if isinstance(tile.args, tuple) else (tile.args,)
            other = _OTHER_BYTES[str(raw)]
            tiles.append(tile._replace(args=(other, *rest) if isinstance(tile.args, tuple) else other))
        again.tile = tiles
        again.load()
        upper, lower = np.asarray(image).astype(np.uint16), np.asarray(again)
    if grey:
        upper, lower = lower[:, :, [0, 0, 0, 2]].astype(np.uint16), lower[:, :, [1, 1, 1, 3]]
    wide = upper << 8 | lower
    planes = [_eight_bits(channels) for channels in (wide[:, :, :3], wide[:, :, 3:]) if channels.size]
    joined = Image.fromarray(np.concatenate(planes, axis=2))
    joined.getexif()[ExifTags.Base.Orientation] = image.getexif().get(ExifTags.Base.Orientation, 1)
    return joined


def _eight_bits(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Keep the upper 8 of the bits that are in use (see `to_rgb`)."""
    bits = next(depth for depth in DEPTHS if values.max() < 1 << depth)
    return (values >> (bits - 8)).astype(np.uint8)
