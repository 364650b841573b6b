"""The page of a map: tissue, probability and calls side by side, with a threshold to move."""

import base64
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cancernet.data.store.decode import ARCHIVE_MPP, SIDE
from cancernet.evaluation.report.formatting import fill
from cancernet.evaluation.report.maps import patch_picture
from cancernet.slides.pictures import photograph, ramp, round_length, with_outline
from cancernet.slides.summary import MapSummary
from cancernet.slides.tissue_map import TissueMap

TEMPLATES = Path(__file__).parent / "templates"
MOST_CELLS = 1000
"""Cells along a side that the page holds; a larger grid is averaged, and areas at other thresholds with it."""


def render(found: TissueMap, summary: MapSummary, truth: NDArray[np.bool_] | None) -> str:
    """Return the page as HTML that needs no other file.

    Args:
        found: The map.
        summary: Its figures.
        truth: (R, C) whether an expert's mask fills a cell.
    """
    height, width = found.overview.shape[:2]
    tissue = found.overview if found.tissue is None else with_outline(found.overview, found.tissue)
    micrometres = found.source.width * found.source.mpp
    length = round_length(micrometres / 4)
    return fill(
        "slide.html.j2",
        folder=TEMPLATES,
        found=found,
        s=summary,
        data=payload(found, summary, truth),
        overview=photograph(found.overview),
        tissue=photograph(tissue),
        shape={"width": width, "height": height},
        bar={
            "share": 100 * length / micrometres,
            "text": f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm",
        },
        patch={"side": SIDE, "mpp": ARCHIVE_MPP, "micrometres": SIDE * ARCHIVE_MPP},
        certain=[_tile(found, number, at) for at, number in enumerate(found.certain.tolist())],
    )


def payload(found: TissueMap, summary: MapSummary, truth: NDArray[np.bool_] | None) -> dict[str, Any]:
    """Everything the script is given: cells row by row as base64, and what they stand for."""
    grid, share = found.grid, found.tissue_share
    by = math.ceil(max(grid.shape) / MOST_CELLS)
    probability, tissue = _averaged(grid, by), np.nan_to_num(_averaged(share, by))
    data: dict[str, Any] = {
        "rows": probability.shape[0],
        "columns": probability.shape[1],
        "probability": _encoded(probability.astype("<f4")),
        "tissue": _encoded(np.rint(255 * tissue).astype(np.uint8)),
        "area": found.cell_area * by**2,
        # The grid may reach beyond the picture.
        "across": 100 * probability.shape[1] * by * found.cell_pixels / found.source.width,
        "down": 100 * probability.shape[0] * by * found.cell_pixels / found.source.height,
        "threshold": summary.threshold,
        "temperature": summary.temperature,
        "ramp": ramp(),
        "truth": None,
    }
    if truth is not None and summary.truth is not None:
        data["truth"] = _encoded((np.nan_to_num(_averaged(truth.astype(np.float64), by)) > 0.5).astype(np.uint8))
    return data


def _averaged(cells: NDArray[np.float64], by: int) -> NDArray[np.float64]:
    """Average blocks of `by` x `by` cells, NaN where all are."""
    if by == 1:
        return cells
    rows, columns = (-(-length // by) * by for length in cells.shape)
    padded = np.pad(cells, ((0, rows - cells.shape[0]), (0, columns - cells.shape[1])), constant_values=np.nan)
    blocks = padded.reshape(rows // by, by, columns // by, by)
    known = (~np.isnan(blocks)).sum(axis=(1, 3))
    return np.where(known, np.nansum(blocks, axis=(1, 3)) / np.maximum(known, 1), np.nan)


def _encoded(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def _tile(found: TissueMap, number: int, at: int) -> dict[str, Any]:
    factor = found.source.factor
    return {
        "source": patch_picture(found.certain_tiles[at]),
        "probability": float(found.probability[number]),
        "call": bool(found.predictions.call[number]),
        "x": round(found.left[number] * factor),
        "y": round(found.top[number] * factor),
    }
