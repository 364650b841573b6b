"""Find tissue on a slide, tell whether it looks like H&E, and measure its stains."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cancernet.errors import InputError
from cancernet.slides.source import Pixels

Mask = NDArray[np.bool_]

SATURATION = (0.05, 0.12)
"""Otsu's threshold is kept within these: glass has less than the first, and a picture without glass, where Otsu divides
the tissue itself, has hardly any below the second."""
SPECK = 0.02
"""Square millimetres (half a patch) below which a piece of tissue is a speck, and a gap in tissue no gap."""
SMOOTH = 12.0
"""Micrometres of the median filter against noise, three pixels at the network's scale."""
DARK, MOST_DARK = 40, 0.5
"""A picture whose brightest channel stays below the first (of 255) in more than this share of it is no bright field."""
LEAST_GREEN = 0.5
"""Share of the tissue's pixels in which an H&E slide absorbs green more than red and blue."""


def otsu(value: NDArray[np.floating], bins: int = 256) -> float:
    """Find the threshold that divides values into two classes of the largest variance between them (Otsu 1979).

    Args:
        value: Numbers of any shape.
        bins: Of the histogram that is divided.

    Returns:
        The upper edge of the lower class; the value itself where all are the same.

    >>> round(otsu(np.array([0.1, 0.11, 0.12, 0.8, 0.82])), 2)
    0.12
    """
    count, edge = np.histogram(value, bins)
    centre = (edge[1:] + edge[:-1]) / 2
    below, above = np.cumsum(count), np.cumsum(count[::-1])[::-1]
    mean_below = np.cumsum(count * centre) / np.maximum(below, 1)
    mean_above = np.cumsum((count * centre)[::-1])[::-1] / np.maximum(above, 1)
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(edge[1 + int(np.argmax(between))])


def find_tissue(picture: Pixels, mpp: float) -> Mask:
    """Find tissue by Otsu's threshold on saturation: glass is grey, stained tissue is not.

    Args:
        picture: uint8 (H, W, 3), RGB.
        mpp: Micrometres a pixel.

    Returns:
        (H, W) bool, without specks, with small gaps closed.

    >>> picture = np.full((60, 60, 3), 240, np.uint8)
    >>> picture[20:50, 10:40] = (180, 90, 160)
    >>> int(find_tissue(picture, mpp=8.0).sum())
    896
    """
    bright = picture.max(axis=2).astype(np.float32)
    saturation = (bright - picture.min(axis=2)) / np.maximum(bright, 1)
    size = 2 * round(SMOOTH / mpp / 2) + 1
    if size > 1:
        saturation = ndimage.median_filter(saturation, size, mode="nearest")
    tissue = saturation > np.clip(otsu(saturation), *SATURATION)
    least = SPECK * 1e6 / mpp**2
    tissue = _without_small(tissue, min(least, tissue.size / 4))
    return ~_without_small(~tissue, min(least, tissue.size / 4))


def _without_small(mask: Mask, least: float) -> Mask:
    """Remove connected pieces of fewer than `least` pixels."""
    pieces, _ = ndimage.label(mask)
    kept = np.bincount(pieces.ravel()) >= least
    kept[0] = False
    return kept[pieces]


def shares(mask: Mask, edges_y: NDArray[np.floating], edges_x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Compute the share of each cell of a grid that a mask fills.

    Args:
        mask: (H, W) bool.
        edges_y: (R + 1,) edges of the rows in pixels of the mask, rising; beyond the mask nothing is filled.
        edges_x: (C + 1,) of the columns.

    Returns:
        (R, C) in [0, 1], exact for fractions of pixels.

    >>> shares(np.array([[True, False]]), np.array([0.0, 1.0]), np.array([0.0, 0.5, 2.0])).round(3).tolist()
    [[1.0, 0.333]]
    """
    total = np.pad(np.cumsum(np.cumsum(mask, axis=0, dtype=np.float64), axis=1), ((1, 0), (1, 0)))
    y, x = np.clip(edges_y, 0, mask.shape[0]), np.clip(edges_x, 0, mask.shape[1])
    corner = ndimage.map_coordinates(total, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest")
    filled = np.diff(np.diff(corner, axis=0), axis=1)
    return np.clip(filled / np.outer(np.diff(edges_y), np.diff(edges_x)), 0.0, 1.0)


def require_bright_field(picture: Pixels, name: str) -> None:
    """Refuse a picture of a dark background, as fluorescence has.

    Raises:
        InputError: More than half of the picture is nearly black.
    """
    dark = float(np.mean(picture.max(axis=2) < DARK))
    if dark > MOST_DARK:
        raise InputError(
            f"{name}: {dark:.0%} of it is nearly black, as under fluorescence; the network knows H&E in bright field "
            "only"
        )


def stain_warning(picture: Pixels, tissue: Mask) -> str | None:
    """Say where tissue does not look like H&E: both stains absorb green more than red and blue.

    Brown of immunohistochemistry absorbs blue most, grey pictures all alike.

    Args:
        picture: uint8 (H, W, 3), RGB.
        tissue: (H, W) bool.

    Returns:
        A sentence, or None.
    """
    red, green, blue = np.moveaxis(picture[tissue].astype(np.int16), -1, 0)
    pink = float(np.mean((green < red) & (green < blue))) if len(red) else 1.0
    if pink >= LEAST_GREEN:
        return None
    return (
        f"it does not look like H&E: green is absorbed most in {pink:.0%} of the tissue, less than half; the network "
        "knows no other stain"
    )
