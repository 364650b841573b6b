"""Maps of a case stitched from the positions of its patches, as small pictures that live inside a page.

Maps of labels, probabilities and calls hold one pixel a cell of the grid (see `cancernet.evaluation.grid`); the page
magnifies them. Cells without a patch are transparent: nothing is known of them.
"""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from cancernet.evaluation.grid import Grid

VIRIDIS = ("440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725")
"""Colours from probability 0 to 1, evenly spaced: rises in lightness, so it survives grey print and colour blindness
(van der Walt and Smith 2015, public domain)."""
CALLS = {"true negative": "7f8fa3", "false positive": "f0b400", "false negative": "d1431c", "true positive": "0b4fa3"}
"""Colours of the four outcomes, by 2 x label + call."""
DIVERGING = ("2a6f97", "f4f2f7", "c2417c")
"""Colours of what speaks against IDC, of nothing, and of what speaks for it."""
SLIDE_QUALITY, COARSE_QUALITY = 62, 35
"""Of lossy WebP: a cell of 8x8 pixels takes about 15 bytes, one of 4x4 pixels and the lower about 3."""


def probability_map(grid: Grid, probability: NDArray[np.floating]) -> str:
    """Draw (N,) probabilities in [0, 1]: 255 steps of `VIRIDIS`."""
    level = 1 + np.rint(254 * np.clip(probability, 0, 1)).astype(np.uint8)
    return _indexed_png(grid, level, _ramp(VIRIDIS, 255))


def label_map(grid: Grid, label: NDArray[np.integer]) -> str:
    """Draw (N,) labels in the colours that `probability_map` gives 0 and 1."""
    return _indexed_png(grid, 1 + label.astype(np.uint8), _ramp((VIRIDIS[0], VIRIDIS[-1]), 2))


def call_map(grid: Grid, label: NDArray[np.integer], called: NDArray[np.bool_]) -> str:
    """Draw right and wrong calls in the colours of `CALLS`; label and called are (N,)."""
    outcome = 2 * label.astype(np.uint8) + called.astype(np.uint8)
    return _indexed_png(grid, 1 + outcome, _ramp(tuple(CALLS.values()), 4))


def stitch_slide(grid: Grid, thumbnail: NDArray[np.uint8], reduction: int = 1) -> str:
    """Put the thumbnails of a case (N, T, T, 3) into their cells.

    Args:
        grid: The cells.
        thumbnail: Pictures of the patches, RGB.
        reduction: Each `reduction` x `reduction` pixels of a thumbnail become one, in a coarser picture; divides T.
    """
    size = thumbnail.shape[1] // reduction
    tiles = thumbnail[grid.patch].reshape(len(grid.patch), size, reduction, size, reduction, 3).mean(axis=(2, 4))
    canvas = np.zeros((grid.rows, size, grid.columns, size, 4), dtype=np.uint8)
    canvas[grid.row, :, grid.column, :, :3] = np.rint(tiles).astype(np.uint8)
    canvas[grid.row, :, grid.column, :, 3] = 255
    quality = SLIDE_QUALITY if reduction == 1 else COARSE_QUALITY
    return _photograph(Image.fromarray(canvas.reshape(grid.rows * size, grid.columns * size, 4)), quality)


def patch_picture(image: NDArray[np.uint8]) -> str:
    """Return a patch (H, W, 3) as it is, RGB."""
    return _encoded(Image.fromarray(image), "PNG", optimize=True)


def draw_activation(activation: NDArray[np.floating]) -> Image.Image:
    """Draw what each cell (h, w) adds to a score, a pixel each, in `DIVERGING` up to the strongest cell."""
    strongest = float(np.abs(activation).max()) or 1.0
    level = np.rint(100 + 100 * activation / strongest).astype(np.intp)
    return Image.fromarray(_ramp(DIVERGING, 201)[level])


def activation_picture(activation: NDArray[np.floating]) -> str:
    """Draw what each cell adds to a score (see `draw_activation`)."""
    return _encoded(draw_activation(activation), "PNG", optimize=True)


def _ramp(colours: tuple[str, ...], steps: int) -> NDArray[np.uint8]:
    """Colours (steps, 3) evenly spaced between the given ones."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in colours], dtype=np.float64)
    at = np.linspace(0, len(anchors) - 1, steps)
    channels = [np.interp(at, np.arange(len(anchors)), anchors[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def _indexed_png(grid: Grid, level: NDArray[np.uint8], colours: NDArray[np.uint8]) -> str:
    """Draw a picture of palette numbers: 0 is transparent, `level` (N,) counts `colours` from 1."""
    cells = np.zeros((grid.rows, grid.columns), dtype=np.uint8)
    cells[grid.row, grid.column] = level[grid.patch]
    image = Image.fromarray(cells)
    image.putpalette([0, 0, 0, *colours.ravel().tolist()])
    return _encoded(image, "PNG", optimize=True, transparency=0)


def _photograph(image: Image.Image, quality: int) -> str:
    if features.check("webp"):
        return _encoded(image, "WEBP", quality=quality, alpha_quality=100, method=4)
    return _encoded(image, "PNG", optimize=True)


def _encoded(image: Image.Image, kind: str, **options: int | bool) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
