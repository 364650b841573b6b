"""Tiles of a slide: where they lie, and reading them by background threads in bounded memory."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cancernet.data.processes import available_cores
from cancernet.data.store.decode import SIDE
from cancernet.slides.source import Pixels, Source

Stride = Literal[5, 10, 25, 50]
"""Pixels of the network from one tile to the next; each divides a patch, so that overlapping tiles share cells."""
LEAST_TISSUE = 0.15
"""Share of a tile that tissue must fill."""
MOST_ACROSS = 40
"""Tiles along a side of a block: 12 MB of tiles, however much they overlap."""
MOST_THREADS = 8
"""Readers: each holds a block of 16 MB and its copies."""

IntArray = NDArray[np.int64]


def starts(extent: int, stride: int, least: int = SIDE // 2) -> IntArray:
    """Return where tiles start along one side of a slide.

    Between the tiles of the plain grid, those of a smaller stride lie wholly on the slide; at its far edge a tile of
    the plain grid may reach beyond, and what is missing is repeated from the edge, as in the archive.

    Args:
        extent: Of the slide in pixels of the network.
        stride: From one tile to the next.
        least: Pixels of the last tile that lie on the slide; what is mostly repeated says little.

    >>> starts(130, 50).tolist(), starts(130, 25).tolist(), starts(103, 50).tolist(), starts(103, 50, least=1).tolist()
    ([0, 50, 100], [0, 25, 50, 75, 100], [0, 50], [0, 50, 100])
    """
    start = np.arange(0, extent, stride, dtype=np.int64)
    reaches = extent - start
    on_grid = (start % SIDE == 0) & (reaches >= least)
    return start[(start == 0) | on_grid | (reaches >= SIDE)]


def choose_tiles(
    width: int, height: int, stride: int, tissue: NDArray[np.float64], everything: bool = False
) -> tuple[IntArray, IntArray]:
    """Return the tiles that hold tissue, from top to bottom and from left to right.

    Args:
        width: Of the slide in pixels of the network.
        height: Likewise.
        stride: From one tile to the next.
        tissue: (R, C) share of tissue in each cell of `stride` x `stride` pixels.
        everything: Take tiles without tissue too, and those at the edge of which little lies on the slide.

    Returns:
        (N,) left and (N,) upper edge of each tile, in pixels of the network.
    """
    left, top = (starts(side, stride, 1 if everything else SIDE // 2) for side in (width, height))
    cells = SIDE // stride
    padded = np.pad(tissue, ((0, cells), (0, cells)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (cells, cells)).mean(axis=(2, 3))
    row, column = np.nonzero(windows[np.ix_(top // stride, left // stride)] >= (0.0 if everything else LEAST_TISSUE))
    return left[column], top[row]


def average_cells(
    left: IntArray, top: IntArray, value: NDArray[np.float64], stride: int, shape: tuple[int, int]
) -> NDArray[np.float64]:
    """Average overlapping tiles in each cell of the grid.

    Args:
        left: (N,) left edge of each tile in pixels of the network, a multiple of `stride`.
        top: (N,) likewise.
        value: (N,) of each tile.
        stride: Side of a cell.
        shape: Rows and columns of the grid.

    Returns:
        (R, C), NaN where no tile lies.

    >>> average_cells(np.array([0, 25]), np.array([0, 0]), np.array([0.0, 1.0]), 25, (2, 4))[0].tolist()
    [0.0, 0.5, 1.0, nan]
    """
    cells = SIDE // stride
    total, count = (np.zeros((shape[0] + cells, shape[1] + cells)) for _ in range(2))
    for down in range(cells):
        for right in range(cells):
            # A tile starts in a cell of its own, so no cell is added to twice at once.
            place = top // stride + down, left // stride + right
            total[place] += value
            count[place] += 1
    with np.errstate(invalid="ignore"):
        return (total / count)[: shape[0], : shape[1]]


def read_tiles(
    source: Source, left: IntArray, top: IntArray, stride: int, threads: int | None = None
) -> Iterator[tuple[IntArray, Pixels]]:
    """Read tiles block by block, some blocks ahead, each block by one of several threads.

    Args:
        source: The slide.
        left: (N,) left edge of each tile in pixels of the network.
        top: (N,) upper edge.
        stride: From one tile to the next.
        threads: That read at the same time; as many as there are cores, `MOST_THREADS` at most, where not given.

    Yields:
        (K,) numbers of tiles, and their pixels, uint8 (K, 50, 50, 3), RGB.

    Raises:
        InputError: The file is damaged.
    """
    side = max(1, min(source.block_side(source.factor) // stride, MOST_ACROSS)) * stride
    block = (top // side) * (int(left.max(initial=0)) // side + 1) + left // side
    order = np.argsort(block, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(block[order])) + 1) if len(order) else []
    threads = min(available_cores(), MOST_THREADS) if threads is None else threads
    pending: deque[tuple[IntArray, Future[Pixels]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="reader") as pool:
        try:
            for members in groups:
                pending.append((members, pool.submit(_read_block, source, left[members], top[members])))
                if len(pending) > threads:
                    ready, pixels = pending.popleft()
                    yield ready, pixels.result()
            while pending:
                ready, pixels = pending.popleft()
                yield ready, pixels.result()
        finally:
            for _, pixels in pending:
                pixels.cancel()


def _read_block(source: Source, left: IntArray, top: IntArray) -> Pixels:
    """Read the rectangle around some tiles once, and cut it."""
    x, y = int(left.min()), int(top.min())
    pixels = source.read(source.factor, x, y, int(left.max()) + SIDE - x, int(top.max()) + SIDE - y)
    tiles = np.empty((len(left), SIDE, SIDE, 3), np.uint8)
    for number, (across, down) in enumerate(zip(left - x, top - y, strict=True)):
        tiles[number] = pixels[down : down + SIDE, across : across + SIDE]
    return tiles
