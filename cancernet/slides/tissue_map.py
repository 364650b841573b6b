"""What a model says of a region or a slide, as arrays; `save` writes it to files."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cancernet.data.store.decode import ARCHIVE_MPP
from cancernet.slides.predictor import Predictions, Predictor
from cancernet.slides.source import Pixels, Source
from cancernet.slides.tiles import IntArray, average_cells
from cancernet.slides.tissue import Mask

if TYPE_CHECKING:
    from cancernet.slides.summary import MapSummary


@dataclass(frozen=True, repr=False)
class TissueMap:
    """Predictions of the N tiles of a region or a slide.

    Attributes:
        source: The region or slide; closed, so only what it says of itself is of use.
        predictor: The model.
        stride: Pixels of the network from one tile to the next, and side of a cell.
        left: (N,) left edge of each tile in pixels of the network, at 4 micrometres.
        top: (N,) upper edge.
        predictions: Of the tiles.
        overview: uint8 (H, W, 3) picture of the whole.
        tissue: (h, w) bool over the whole, at a scale of its own; None where it was not looked for.
        tissue_share: (R, C) share of tissue in each cell.
        stains: (2, 3) mean and deviation of the optical density that was normalised from; None where stains were left.
        certain: Numbers of the tiles most certainly IDC, then of those most certainly benign.
        certain_tiles: Their pixels, uint8 (K, 50, 50, 3).
    """

    source: Source
    predictor: Predictor
    stride: int
    left: IntArray
    top: IntArray
    predictions: Predictions
    overview: Pixels
    tissue: Mask | None
    tissue_share: NDArray[np.float64]
    stains: NDArray[np.float32] | None
    certain: IntArray
    certain_tiles: Pixels

    def __repr__(self) -> str:
        return f"TissueMap({self.source.name!r}, {len(self.left):,} tiles, {self.idc_area:.3g} mm² IDC)"

    @property
    def name(self) -> str:
        """Name of the file."""
        return Path(self.source.name).name

    @property
    def synthetic(self) -> bool:
        """Whether a program drew the tissue, or that which trained the model."""
        return self.source.synthetic or self.predictor.synthetic

    @property
    def probability(self) -> NDArray[np.float64]:
        """(N,) probability of IDC of each tile."""
        return self.predictions.probability

    @property
    def grid(self) -> NDArray[np.float64]:
        """(R, C) probability of IDC in each cell, the mean of the tiles that cover it; NaN where none does."""
        return average_cells(self.left, self.top, self.probability, self.stride, self.tissue_share.shape)

    @property
    def called(self) -> Mask:
        """(R, C) whether a cell is called IDC."""
        return self.grid >= self.predictions.threshold  # False where NaN

    @property
    def cell_pixels(self) -> float:
        """Side of a cell in pixels of the finest level."""
        return self.stride * self.source.factor

    @property
    def cell_area(self) -> float:
        """Square millimetres of a whole cell."""
        return (self.stride * ARCHIVE_MPP / 1000) ** 2

    @property
    def tissue_area(self) -> float:
        """Square millimetres of tissue in the cells that were predicted."""
        return float(self.tissue_share[~np.isnan(self.grid)].sum() * self.cell_area)

    @property
    def idc_area(self) -> float:
        """Square millimetres of tissue in the cells that are called IDC."""
        return float(self.tissue_share[self.called].sum() * self.cell_area)

    @cached_property
    def idc_outline(self) -> Any:
        """Outline of the cells that are called IDC, as shapely has it, in pixels of the finest level."""
        return self._outline(self.called, self.cell_pixels)

    @cached_property
    def tissue_outline(self) -> Any:
        """Outline of the tissue, likewise; None where it was not looked for."""
        return None if self.tissue is None else self._outline(self.tissue, self.source.width / self.tissue.shape[1])

    def _outline(self, mask: Mask, cell: float) -> Any:
        from cancernet.slides.geometry import outline

        return outline(mask, cell, self.source.width, self.source.height)

    @property
    def summary(self) -> "MapSummary":
        """The figures of the map, as `summary.json` holds them."""
        from cancernet.slides.summary import summarise

        return summarise(self)

    def save(self, folder: str | Path, truth: str | Path | None = None) -> Path:
        """Write predictions, maps, GeoJSON, summary and page into a folder (see `cancernet.slides.outputs`)."""
        from cancernet.slides.outputs import write_map

        return write_map(self, Path(folder), None if truth is None else Path(truth))
