"""Grid positions of the patches of a case on their slide, and their neighbours.

A patch lies in the grid cell ((x - 1) // 50, (y - 1) // 50) of its slide.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate

from cancernet.evaluation.metrics import FloatArray, IntArray

CELL = 50
"""Side of a grid cell in pixels of the slide."""
MOST_CELLS = 500
"""Cells along a side beyond which positions are taken as wrong; a slide of the archive has fewer than 80."""


@dataclass(frozen=True)
class Grid:
    """Cells of the patches of a case, counted from the upper left one that holds a patch.

    Attributes:
        patch: (K,) numbers of the patches whose position is known, within the case.
        column: (K,) from 0 to `columns` - 1.
        row: (K,) from 0 to `rows` - 1.
    """

    patch: IntArray
    column: IntArray
    row: IntArray

    @property
    def columns(self) -> int:
        """Cells from left to right."""
        return int(self.column.max()) + 1

    @property
    def rows(self) -> int:
        """Cells from top to bottom."""
        return int(self.row.max()) + 1


def lay_out(x: NDArray[np.integer], y: NDArray[np.integer]) -> Grid | None:
    """Find the grid cells of a case.

    Args:
        x: (N,) left edge of each patch in pixels from 1, negative where unknown.
        y: (N,) upper edge likewise.

    Returns:
        The grid; None where no position is known, or positions lie further apart than on any slide.

    >>> grid = lay_out(np.array([101, 201]), np.array([51, 51]))
    >>> grid.column.tolist(), grid.row.tolist()
    ([0, 2], [0, 0])
    """
    known = np.flatnonzero((np.asarray(x) >= 0) & (np.asarray(y) >= 0))
    if not len(known):
        return None
    column, row = ((np.asarray(axis, dtype=np.int64)[known] - 1) // CELL for axis in (x, y))
    grid = Grid(known, column - column.min(), row - row.min())
    return grid if max(grid.columns, grid.rows) <= MOST_CELLS else None


def sum_ring(grid: Grid, value: FloatArray, distance: int) -> tuple[FloatArray, FloatArray]:
    """Sum a value over the ring of 8 x `distance` cells around each patch.

    Args:
        grid: The cells.
        value: (N,) a number for each patch of the case; patches that share a cell count with their mean.
        distance: Steps, also diagonal ones, from the patch to the ring.

    Returns:
        (K,) number of the ring's cells that hold a patch, and (K,) the sum of their values; both 0 where none does.

    >>> grid = lay_out(np.array([1, 51, 51]), np.array([1, 1, 51]))
    >>> [values.tolist() for values in sum_ring(grid, np.array([1.0, 2.0, 4.0]), 1)]
    [[2.0, 2.0, 2.0], [6.0, 5.0, 3.0]]
    """
    cell, size = grid.row * grid.columns + grid.column, grid.rows * grid.columns
    patches = np.bincount(cell, minlength=size)
    mean = np.bincount(cell, weights=value[grid.patch], minlength=size) / np.maximum(patches, 1)
    ring = np.pad(np.zeros((2 * distance - 1, 2 * distance - 1)), 1, constant_values=1)
    planes = (np.float64(patches > 0).reshape(grid.rows, -1), mean.reshape(grid.rows, -1))
    count, total = (correlate(plane, ring, mode="constant")[grid.row, grid.column] for plane in planes)
    return count, total
