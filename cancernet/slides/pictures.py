"""Pictures of a map: one for people, with legend and scale bar, and the raw values as a TIFF with its resolution."""

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from cancernet.data.store.decode import ARCHIVE_MPP
from cancernet.evaluation.figures import CLASS_NAMES, SYNTHETIC_NOTE
from cancernet.slides.extra import shapely, tifffile
from cancernet.slides.source import Pixels
from cancernet.slides.tissue_map import TissueMap

COLOURS = "viridis"
"""Rises in lightness, so it survives grey print and colour blindness."""
OVERLAY = 0.55
"""Opacity of the probability over the tissue."""
CALLED, TISSUE = "#c2417c", "#444444"
"""Colours of the outlines."""
BAR_SHARE = 0.25
"""The scale bar takes at most this share of the width."""
WIDE = 8.0
"""Inches of the picture."""
NOTICE = "Research, not for diagnosis"
PHOTOGRAPH = 80
"""Quality of JPEG pictures in a page."""


def round_length(most: float) -> float:
    """Return the largest of 1, 2, 5, 10, 20, ... (and their tenths) that is not above a length.

    >>> round_length(730.0), round_length(0.3)
    (500.0, 0.2)
    """
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))


def draw_map(found: TissueMap) -> Figure:
    """Draw the probability of IDC over the tissue, with legend, scale bar, outline of the tissue and of the calls."""
    height, width = found.overview.shape[:2]
    micrometres = found.source.width * found.source.mpp
    figure = Figure(figsize=(WIDE, min(14.0, max(3.0, WIDE * 0.82 * height / width + 0.6))), dpi=120)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    axes.imshow(found.overview, interpolation="antialiased")
    grid = np.ma.masked_invalid(found.grid)
    right, bottom = (cells * found.cell_pixels * width / found.source.width for cells in (grid.shape[1], grid.shape[0]))
    place = (-0.5, right - 0.5, bottom - 0.5, -0.5)
    axes.imshow(grid, cmap=COLOURS, vmin=0, vmax=1, alpha=OVERLAY, extent=place, interpolation="nearest")
    for outline, colour, line in ((found.idc_outline, CALLED, 1.6), (found.tissue_outline, TISSUE, 0.8)):
        if outline is not None:
            rings = shapely.get_rings(shapely.get_parts(outline))
            points, ring = shapely.get_coordinates(rings, return_index=True)
            lines = np.split(points * width / found.source.width - 0.5, np.flatnonzero(np.diff(ring)) + 1)
            axes.add_collection(LineCollection(lines, colors=colour, linewidths=line))
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set_axis_off()
    _scale_bar(axes, width, height, micrometres)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), COLOURS), ax=axes, fraction=0.05, shrink=0.8, pad=0.02)
    bar.set_label(f"probability: 0 ({CLASS_NAMES[0]}) to 1 ({CLASS_NAMES[1]})")
    threshold = found.predictions.threshold
    if threshold <= 1:
        bar.ax.axhline(threshold, color=CALLED, linewidth=1.6)
    title = found.name if len(found.name) < 60 else f"{found.name[:57]}..."
    note = f"{SYNTHETIC_NOTE}. " if found.synthetic else ""
    # A dollar would begin a formula.
    axes.set_title(f"{title}\n{note}Outlined: IDC at {threshold:.3g}. {NOTICE}".replace("$", r"\$"), fontsize=9)
    return figure


def _scale_bar(axes: Any, width: int, height: int, micrometres: float) -> None:
    length = round_length(micrometres * BAR_SHARE)
    across = length / micrometres * width
    text = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    left, bottom, thick = width * 0.03, height * 0.97, max(2.0, height * 0.008)
    axes.add_patch(Rectangle((left, bottom - thick), across, thick, color="black", linewidth=0))
    box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5}
    axes.text(left, bottom - 2 * thick, text, ha="left", va="bottom", fontsize=9, bbox=box)


def write_raw(path: Path, found: TissueMap) -> None:
    """Write the probability of each cell as a float TIFF, NaN where none, with the size of a cell as its resolution."""
    dots = 10_000 / (found.stride * ARCHIVE_MPP)
    tifffile.imwrite(
        path,
        found.grid.astype(np.float32),
        resolution=(dots, dots),
        resolutionunit="CENTIMETER",
        compression="zlib",
        description="probability of IDC; NaN: not predicted. " + NOTICE,
        metadata=None,
    )


def photograph(pixels: Pixels) -> str:
    """Return a picture (H, W, 3) for a page, as a data address of a JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=PHOTOGRAPH)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def with_outline(picture: Pixels, tissue: NDArray[np.bool_]) -> Pixels:
    """Return a picture (H, W, 3) where what is no tissue is faded and the edge of tissue (h, w) is drawn."""
    height, width = picture.shape[:2]
    mask = np.asarray(Image.fromarray(tissue).resize((width, height), Image.Resampling.NEAREST))
    edge = mask ^ ndimage.binary_erosion(mask, iterations=max(1, width // 500), border_value=1)
    shown = np.where(mask[:, :, None], picture, 255 - (255 - picture) // 4).astype(np.uint8)
    shown[edge] = (40, 90, 40)
    return shown


def ramp() -> list[str]:
    """Colours of probability 0 to 1, for the page's script."""
    return colormaps[COLOURS](np.linspace(0, 1, 256), bytes=True)[:, :3].tolist()
