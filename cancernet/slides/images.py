"""Read single images, of files or from memory, as RGB; and cut or scale them to patches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cancernet.data.archive.members import PatchError
from cancernet.data.pixels import BOMB, read_rgb, to_rgb
from cancernet.data.store.decode import SIDE, Scaling
from cancernet.data.store.sizes import describe_sizes
from cancernet.errors import InputError

ImageLike = str | Path | Image.Image | NDArray[np.uint8]
"""A file, a Pillow image, or uint8 (H, W, 3), RGB."""
ADVICE = "give a whole PNG, JPEG, TIFF, BMP or WebP file, or a slide that OpenSlide reads"


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
    """Bring images to the size of a patch, 50 x 50 pixels, as an archive's are (see `data.store.decode.Scaling`).

    Args:
        images: Files, Pillow images or arrays.
        mpp: Micrometres a pixel of all images; None where it is not known.

    Returns:
        uint8 (N, 50, 50, 3), and what was assumed, a sentence each.

    Raises:
        InputError: An image cannot be read, is smaller than half a patch, or is a region.

    >>> patches, notes = to_patches([np.zeros((96, 96, 3), np.uint8)])
    >>> patches.shape, notes[0].split(",")[0]
    ((1, 50, 50, 3), 'images of 96x96 pixels resized to 50x50')
    """
    patches, sizes = np.empty((len(images), SIDE, SIDE, 3), np.uint8), np.empty((len(images), 2), np.int16)
    scaling = Scaling(None, mpp)
    for number, image in enumerate(images):
        pixels = read_image(image)
        height, width = pixels.shape[:2]
        try:
            scaling.check_size(width, height)
        except PatchError as error:
            name = str(image) if isinstance(image, str | Path) else f"image {number}"
            raise InputError(
                f"{name}: {width} x {height} pixels: {error}; give its scale by mpp if that is wrong"
            ) from error
        patches[number], sizes[number] = scaling.apply(pixels), (width, height)
    note = describe_sizes(scaling, sizes[:, 0], sizes[:, 1]) if len(images) else ""
    return patches, [note] if note else []


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
    # The filter that patches of other scales are resampled with.
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, box))
