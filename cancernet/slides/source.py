"""Pixels of a region or a slide at any scale, read in parts, so that memory stays bounded."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cancernet.data.store.decode import ARCHIVE_MPP
from cancernet.slides.images import resize

Pixels = NDArray[np.uint8]

BLOCK = 2048
"""Side of a block in pixels of the file: 16 MB as it is read, small against its overlap with its neighbours."""
SAME_SCALE = 0.002
"""Scales that differ by less are the same: pixels are then taken as they are."""
SUPPORT = 1
"""Pixels of the coarser scale that the resampling filter reaches to either side."""


@dataclass(frozen=True)
class Source:
    """A region or a slide.

    Attributes:
        name: Of the file, or "array".
        kind: How it is read: "region" is decoded as a whole, "slide" in parts.
        format: Of the file, such as "PNG" or "aperio".
        width: Pixels of the finest level.
        height: Likewise.
        mpp: Micrometres a pixel of the finest level.
        mpp_from: Whether `mpp` was given, is the file's own, or is assumed, being the archive's.
        synthetic: Whether a program drew the tissue, as far as the file says.
        levels: (width, height) of each level, the finest first.
        read_level: Reads (level, left, top, width, height), in pixels of that level and within it, as RGB.
        close: Releases the file.
    """

    name: str
    kind: Literal["region", "slide"]
    format: str
    width: int
    height: int
    mpp: float
    mpp_from: Literal["given", "file", "assumed"]
    synthetic: bool
    levels: tuple[tuple[int, int], ...]
    read_level: Callable[[int, int, int, int, int], Pixels]
    close: Callable[[], None] = lambda: None

    @property
    def factor(self) -> float:
        """Pixels of the finest level to one of the network's."""
        factor = ARCHIVE_MPP / self.mpp
        return 1.0 if abs(factor - 1) < SAME_SCALE else factor

    def size_at(self, factor: float) -> tuple[int, int]:
        """Width and height in pixels that are `factor` as large as those of the finest level."""
        return max(1, round(self.width / factor)), max(1, round(self.height / factor))

    def best_level(self, factor: float) -> int:
        """The coarsest level that is as fine as a scale or finer: the nearest from above."""
        fits = [level for level in range(len(self.levels)) if self._downsample(level) <= factor * (1 + SAME_SCALE)]
        return max(fits, key=self._downsample, default=0)

    def _downsample(self, level: int) -> float:
        width, height = self.levels[level]
        return (self.width / width + self.height / height) / 2

    def block_side(self, factor: float) -> int:
        """Side of a block at a scale, in its pixels, so that as many are read as `BLOCK` has."""
        return max(1, int(BLOCK * self._downsample(self.best_level(factor)) / factor))

    def read(self, factor: float, left: int, top: int, width: int, height: int) -> Pixels:
        """Read a rectangle at a scale. The edge is repeated beyond itself.

        A pixel is the same whatever rectangle it is read with, but for some that are rounded the other way.

        Args:
            factor: Pixels of the finest level to one of the result.
            left: In pixels of the result.
            top: Likewise.
            width: Likewise.
            height: Likewise.

        Returns:
            uint8 (height, width, 3), RGB.
        """
        level = self.best_level(factor)
        scale = factor / self._downsample(level)
        if abs(scale - 1) < SAME_SCALE:
            return self._read_beyond(level, round(left * scale), round(top * scale), width, height)
        margin = math.ceil(SUPPORT * max(scale, 1.0))
        x0, y0, x1, y1 = left * scale, top * scale, (left + width) * scale, (top + height) * scale
        first_x, first_y = math.floor(x0) - margin, math.floor(y0) - margin
        across, down = math.ceil(x1) + margin - first_x, math.ceil(y1) + margin - first_y
        pixels = self._read_beyond(level, first_x, first_y, across, down)
        return resize(pixels, width, height, (x0 - first_x, y0 - first_y, x1 - first_x, y1 - first_y))

    def _read_beyond(self, level: int, left: int, top: int, width: int, height: int) -> Pixels:
        most_x, most_y = self.levels[level]
        x0, x1 = (min(max(edge, 0), most_x) for edge in (left, left + width))
        y0, y1 = (min(max(edge, 0), most_y) for edge in (top, top + height))
        x0, y0 = min(x0, most_x - 1), min(y0, most_y - 1)
        x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
        pixels = self.read_level(level, x0, y0, x1 - x0, y1 - y0)
        if (x1 - x0, y1 - y0) == (width, height):
            return pixels
        before = max(0, y0 - top), max(0, x0 - left)
        after = height - before[0] - (y1 - y0), width - before[1] - (x1 - x0)
        return np.pad(pixels, ((before[0], max(0, after[0])), (before[1], max(0, after[1])), (0, 0)), mode="edge")

    def overview(self, side: int) -> Pixels:
        """Read the whole, shrunk so that neither side is longer than `side` pixels."""
        factor = max(1.0, max(self.width, self.height) / side)
        width, height = self.size_at(factor)
        step = self.block_side(factor)
        picture = np.empty((height, width, 3), np.uint8)
        for top in range(0, height, step):
            for left in range(0, width, step):
                across, down = min(step, width - left), min(step, height - top)
                picture[top : top + down, left : left + across] = self.read(factor, left, top, across, down)
        return picture


def array_source(
    pixels: Pixels, name: str, form: str, mpp: float, mpp_from: Literal["given", "file", "assumed"], synthetic: bool
) -> Source:
    """Make a source of an image (H, W, 3) in memory."""
    height, width = pixels.shape[:2]

    def read_level(level: int, left: int, top: int, across: int, down: int) -> Pixels:
        return pixels[top : top + down, left : left + across]

    return Source(name, "region", form, width, height, mpp, mpp_from, synthetic, ((width, height),), read_level)
