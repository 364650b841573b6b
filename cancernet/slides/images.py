"""Read single images, of files or from memory, as RGB; and cut or scale them to patches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cancernet.data.archive.members import PatchError
from cancernet.data.pixels import BOMB, read_rgb, to_rgb
from cancernet.data.store.decode import SIDE
from cancernet.errors import InputError

ImageLike = str | Path | Image.Image | NDArray[np.uint8]
"""A file, a Pillow image, or uint8 (H, W, 3), RGB."""
PATCH_MPP = 4.0
"""Micrometres a pixel of the archive: its patches show 200 micrometres of tissue."""
ADVICE = "give a whole PNG, JPEG, TIFF, BMP or WebP file, or a slide that OpenSlide reads"
SQUARE = 0.1
"""Width and height of a patch differ by less than this share; other images are regions."""


def read_image(image: ImageLike) -> NDArray[np.uint8]:
    """Read one image as RGB.

    Args:
        image: A file, a Pillow image, or an array.

    Returns:
        uint8 (H, W, 3).

    Raises:
        InputError: No such file, no image, a damaged or too large one, or an array of another shape or type.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise InputError(f"expected an image as uint8 (H, W, 3), RGB; got {image.dtype} {image.shape}")
        return image
    name = "image" if isinstance(image, Image.Image) else str(image)
    try:
        if isinstance(image, Image.Image):
            return to_rgb(image)
        with Path(image).open("rb") as file:
            return read_rgb(file)
    except FileNotFoundError:
        raise InputError(f"{name}: no such file; give an image or a slide") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror}); give an image or a slide") from error
    except PatchError as error:
        way = "save it as a tiled TIFF, which is read in parts" if str(error) == BOMB else ADVICE
        raise InputError(f"{name}: {error}; {way}") from error


def to_patches(images: Sequence[ImageLike], mpp: float | None = None) -> tuple[NDArray[np.uint8], list[str]]:
    """Bring images to the size of a patch, 50 x 50 pixels.

    With a scale, the middle of an image that shows more tissue than a patch is cut out. Without one, an image is taken
    to show one patch, whatever its size; one that is smaller than a patch and not square is one from a slide's edge and
    padded by repetition, as in the archive.

    Args:
        images: Files, Pillow images or arrays.
        mpp: Micrometres a pixel of all images; None where it is not known.

    Returns:
        uint8 (N, 50, 50, 3), and what was assumed, a sentence each.

    Raises:
        InputError: An image cannot be read, is smaller than half a patch, or is a region.

    >>> patches, notes = to_patches([np.zeros((96, 96, 3), np.uint8)])
    >>> patches.shape, notes
    ((1, 50, 50, 3), ['1 image of 96 x 96 pixels was resized to 50 x 50: its scale is not known'])
    """
    patches = np.empty((len(images), SIDE, SIDE, 3), np.uint8)
    notes: dict[str, int] = {}
    for number, image in enumerate(images):
        name = str(image) if isinstance(image, str | Path) else f"image {number}"
        patches[number], assumed = _to_patch(read_image(image), name, mpp)
        if assumed:
            notes[assumed] = notes.get(assumed, 0) + 1
    return patches, [f"{count} image{'s' * (count != 1)} of {note}" for note, count in notes.items()]


def _to_patch(pixels: NDArray[np.uint8], name: str, mpp: float | None) -> tuple[NDArray[np.uint8], str | None]:
    height, width = pixels.shape[:2]
    size = f"{width} x {height} pixels"
    if mpp is not None:
        return _cut_patch(pixels, name, mpp)
    if (height, width) == (SIDE, SIDE):
        return pixels, None
    require_half_a_patch(name, width, height, 1.0)
    if abs(width - height) < SQUARE * max(width, height):
        return resize(pixels, SIDE, SIDE), f"{size} was resized to {SIDE} x {SIDE}: its scale is not known"
    if max(width, height) <= SIDE:
        padded = np.pad(pixels, ((0, SIDE - height), (0, SIDE - width), (0, 0)), mode="edge")
        return padded, f"{size} was padded to {SIDE} x {SIDE}, as one from a slide's edge"
    raise InputError(f"{name}: {size} are a region, not a patch; use map, or crop it to a square")


def _cut_patch(pixels: NDArray[np.uint8], name: str, mpp: float) -> tuple[NDArray[np.uint8], str | None]:
    height, width = pixels.shape[:2]
    factor = PATCH_MPP / mpp
    require_half_a_patch(name, width, height, factor)
    side, shown = SIDE * factor, f"{width} x {height} pixels at {mpp:g} micrometres a pixel"
    if min(width, height) < side * (1 - SQUARE):
        tissue = f"shows {min(width, height) * mpp:.0f} micrometres of tissue, a patch {SIDE * PATCH_MPP:.0f}"
        return resize(pixels, SIDE, SIDE), f"{shown} {tissue}: it was magnified"
    across, down = min(side, width), min(side, height)
    left, top = (width - across) / 2, (height - down) / 2
    note = f"{shown} was cut to its middle and scaled" if max(width, height) > side * (1 + SQUARE) else None
    return resize(pixels, SIDE, SIDE, (left, top, left + across, top + down)), note


def require_half_a_patch(name: str, width: int, height: int, factor: float) -> None:
    """Refuse an image that shows less than half of what the network sees.

    Args:
        name: What the message begins with.
        width: In pixels.
        height: In pixels.
        factor: Pixels of the image to one of the network's patch.

    Raises:
        InputError: Either side is shorter than half a patch.
    """
    least = SIDE * factor / 2
    if min(width, height) < least:
        raise InputError(
            f"{name}: {width} x {height} pixels are less than half a patch ({least:.0f} pixels along a side at this "
            "scale); give a larger image, or its scale by mpp if that is wrong"
        )


def resize(
    pixels: NDArray[np.uint8], width: int, height: int, box: tuple[float, float, float, float] | None = None
) -> NDArray[np.uint8]:
    """Resample an image (H, W, 3), or the box (left, top, right, bottom) of it, to (height, width, 3), antialiased."""
    whole = (0.0, 0.0, float(pixels.shape[1]), float(pixels.shape[0]))
    box = whole if box is None else box
    if box[2] - box[0] == width and box[3] - box[1] == height and all(edge == round(edge) for edge in box):
        left, top = round(box[0]), round(box[1])
        return pixels[top : top + height, left : left + width]
    # The filter that Pillow takes by default, and so most programs that cut patches from slides.
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, box))
