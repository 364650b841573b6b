"""Which tiles of a region or a slide are predicted: those with tissue on them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cancernet.data.store.decode import ARCHIVE_MPP
from cancernet.errors import InputError
from cancernet.slides.images import resize
from cancernet.slides.source import Pixels, Source
from cancernet.slides.tiles import IntArray, choose_tiles
from cancernet.slides.tissue import Mask, find_tissue, require_bright_field, shares

OVERVIEW = 1600
"""Longest side of the picture that tissue is found on and that is shown."""


@dataclass(frozen=True)
class TilePlan:
    """The N tiles of a region or a slide, and what they were chosen by.

    Attributes:
        left: (N,) left edge of each tile in pixels of the network, at 4 micrometres.
        top: (N,) upper edge.
        overview: uint8 (H, W, 3) picture of the whole.
        looks_like_tissue: (h, w) bool over the whole, at a scale of its own.
        mask: The same, or all of it where tiles without tissue are predicted too.
        cells: (R, C) share of `mask` in each cell of the grid.
    """

    left: IntArray
    top: IntArray
    overview: Pixels
    looks_like_tissue: Mask
    mask: Mask
    cells: NDArray[np.float64]


def plan_tiles(source: Source, stride: int, tissue: bool) -> TilePlan:
    """Find the tissue of a source and the tiles that hold some.

    Args:
        source: The region or slide.
        stride: Pixels of the network from one tile to the next, and side of a cell.
        tissue: Leave out tiles without tissue.

    Raises:
        InputError: It holds no tissue, or is no bright-field image.
    """
    overview = source.overview(OVERVIEW)
    require_bright_field(overview, source.name)
    looks_like_tissue = _find_mask(source, overview)
    mask = looks_like_tissue if tissue else np.ones_like(looks_like_tissue)
    width, height = source.size_at(source.factor)
    cells = _cell_shares(mask, source, -(-width // stride), -(-height // stride), stride)
    left, top = choose_tiles(width, height, stride, cells, everything=not tissue)
    if not len(left):
        raise InputError(
            f"{source.name}: no tissue found, all of it looks like glass; `map --tissue false` takes all of it"
        )
    return TilePlan(left, top, overview, looks_like_tissue, mask, cells)


def _find_mask(source: Source, overview: Pixels) -> Mask:
    """Find the tissue of a source, at the scale of its overview or, where that is finer, at the network's."""
    height, width = overview.shape[:2]
    mpp = source.mpp * source.width / width
    if mpp >= ARCHIVE_MPP:
        return find_tissue(overview, mpp)
    coarse = max(1, round(width * mpp / ARCHIVE_MPP)), max(1, round(height * mpp / ARCHIVE_MPP))
    return find_tissue(resize(overview, *coarse), ARCHIVE_MPP)


def _cell_shares(mask: Mask, source: Source, columns: int, rows: int, stride: int) -> NDArray[np.float64]:
    cell = stride * source.factor
    edges_y = np.arange(rows + 1) * cell * mask.shape[0] / source.height
    edges_x = np.arange(columns + 1) * cell * mask.shape[1] / source.width
    return shares(mask, edges_y, edges_x)
