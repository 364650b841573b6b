"""Stamp soft-edged ellipses, of which synthetic slides are made: nuclei, lumens, the area that a gland covers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Ellipses:
    """Ellipses as columns of one length.

    Attributes:
        y: row of the centre in pixels.
        x: column of the centre in pixels.
        long: longer half axis in pixels.
        short: shorter half axis in pixels.
        angle: direction of the longer axis in radians.
        depth: height of the stamp: optical density of a nucleus, open share of a lumen.
    """

    y: Field
    x: Field
    long: Field
    short: Field
    angle: Field
    depth: Field

    @classmethod
    def of(cls, y: ArrayLike, x: ArrayLike, *others: ArrayLike) -> "Ellipses":
        """Make the columns from arrays or single numbers."""
        columns = np.broadcast_arrays(*[np.asarray(value, np.float32) for value in (y, x, *others)])
        return cls(*[np.atleast_1d(column) for column in columns])

    @classmethod
    def join(cls, parts: Sequence["Ellipses"]) -> "Ellipses":
        """Join the ellipses of all parts."""
        if not parts:
            return cls(*[np.empty(0, np.float32)] * 6)
        return cls(*[np.concatenate(column) for column in zip(*[part.columns() for part in parts], strict=True)])

    def columns(self) -> tuple[Field, ...]:
        """Return the columns in the order of the attributes."""
        return self.y, self.x, self.long, self.short, self.angle, self.depth

    def where(self, kept: Mask) -> "Ellipses":
        """Return the ellipses that a mask keeps."""
        return Ellipses(*[column[kept] for column in self.columns()])


def stamp(shape: tuple[int, ...], nuclei: Ellipses) -> Field:
    """Add up soft-edged ellipses in a field of the given shape; what lies beyond its edge is left out.

    >>> stamp((3, 3), Ellipses.of(1.5, 1.5, 1, 1, 0, 0.8)).round(1)
    array([[0. , 0.4, 0. ],
           [0.4, 0.8, 0.4],
           [0. , 0.4, 0. ]], dtype=float32)
    """
    total = np.zeros(shape, np.float32)
    reach = np.ceil(1.5 * np.maximum(nuclei.long, nuclei.short) + 0.5).astype(int)
    reach = np.where(reach > 5, 1 << np.ceil(np.log2(np.maximum(reach, 1))).astype(int), reach)  # few window sizes
    for half in np.unique(reach):
        some = nuclei.where(reach == half)
        window = np.arange(-half, half + 1)
        row = np.floor(some.y).astype(int)[:, None, None] + window[:, None]
        column = np.floor(some.x).astype(int)[:, None, None] + window
        down = (row + 0.5 - some.y[:, None, None]).astype(np.float32)
        right = (column + 0.5 - some.x[:, None, None]).astype(np.float32)
        cos, sin = np.cos(some.angle)[:, None, None], np.sin(some.angle)[:, None, None]
        along = (right * cos + down * sin) / some.long[:, None, None]
        across = (down * cos - right * sin) / some.short[:, None, None]
        sharpness = np.clip(0.5 * some.short, 2, 12)[:, None, None]  # about a pixel of soft edge at any size
        value = some.depth[:, None, None] * np.exp2(-((along * along + across * across) ** sharpness))
        inside = (row >= 0) & (row < shape[0]) & (column >= 0) & (column < shape[1])
        place = (row * shape[1] + column)[inside]
        total += np.bincount(place, value[inside], minlength=total.size).reshape(shape).astype(np.float32)
    return total
