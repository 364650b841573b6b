"""GeoJSON of a map that QuPath opens: tiles as objects with measurements, tissue and IDC as outlined annotations."""

import json
import math
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cancernet.data.store.decode import SIDE
from cancernet.evaluation.figures import CLASS_NAMES
from cancernet.slides.extra import shapely
from cancernet.slides.tissue import Mask
from cancernet.slides.tissue_map import TissueMap

COLOURS = {"IDC": [194, 65, 124], "benign": [42, 111, 151], "Tissue": [120, 120, 120]}
"""Red, green, blue of each class in QuPath; the first two are the report's."""
DECIMALS = 2
"""Of coordinates in pixels of the finest level."""


def outline(mask: Mask, cell: float, width: float, height: float) -> Any:
    """Outline the filled cells of a grid; gaps stay as holes.

    Args:
        mask: (R, C) bool.
        cell: Side of a cell.
        width: Of the whole, in the same units; cells at the edge are cut there.
        height: Likewise.

    Returns:
        Polygons, none where no cell is filled; the exterior counterclockwise, holes clockwise (RFC 7946, 3.1.6).

    >>> ring = np.ones((3, 3), bool)
    >>> ring[1, 1] = False
    >>> found = outline(ring, 10.0, 30.0, 25.0)
    >>> found.area, len(found.geoms), len(found.geoms[0].interiors), found.geoms[0].exterior.is_ccw
    (650.0, 1, 1, True)
    """
    mask = mask[: math.ceil(height / cell), : math.ceil(width / cell)]
    faces = shapely.get_parts(shapely.polygonize(shapely.linestrings(_edges(mask))))
    corners, face = shapely.get_coordinates(shapely.get_exterior_ring(faces), return_index=True)
    # The cell below and to the right of a face's uppermost left corner is in that face: it tells gaps from what is
    # filled.
    order = np.lexsort((*corners.T, face))
    first = order[np.unique(face[order], return_index=True)[1]]
    column, row = corners[first].astype(np.int64).T
    filled = shapely.multipolygons(faces[mask[row, column]])
    filled = shapely.transform(filled, lambda points: np.minimum(points * cell, (width, height)))
    return shapely.orient_polygons(filled)


def _edges(mask: Mask) -> NDArray[np.float64]:
    """Return the straight lines (N, 2, 2) between what is filled and what is not; they meet at their ends alone.

    Where filled cells touch at a corner, the side that is filled changes, and with it the line ends.
    """
    padded = np.pad(mask, 1).astype(np.int8)
    lines = []
    for grid in (padded, padded.T):
        side = np.ascontiguousarray(np.diff(grid, axis=1).T)  # -1 or 1 where an edge lies; its row is the line's
        line, along = np.nonzero(side)
        filled = side[line, along]
        starts = np.diff(line, prepend=-1) | (np.diff(along, prepend=-1) != 1) | np.diff(filled, prepend=0)
        starts = np.append(starts != 0, True)
        first, last = along[starts[:-1]] - 1, along[starts[1:]]
        lines.append(np.stack([np.stack([line[starts[:-1]], end], axis=-1) for end in (first, last)], axis=1))
    return np.concatenate([lines[0], lines[1][:, :, ::-1]]).astype(np.float64)


def tile_features(found: TissueMap) -> Iterator[dict[str, Any]]:
    """Yield each tile as a feature, in pixels of the finest level, cut at the slide's edge."""
    factor, source, predictions = found.source.factor, found.source, found.predictions
    x0, y0 = found.left * factor, found.top * factor
    x1, y1 = np.minimum(x0 + SIDE * factor, source.width), np.minimum(y0 + SIDE * factor, source.height)
    corners = np.round(np.stack([x0, y0, x1, y1], axis=1), DECIMALS).tolist()
    values: dict[str, NDArray[Any]] = {"probability": predictions.probability, "logit": predictions.logit}
    if found.predictor.temperature is not None:
        values["probability calibrated"] = predictions.calibrated
    columns = zip(*(column.tolist() for column in values.values()), strict=True)
    for (left, top, right, bottom), call, numbers in zip(corners, predictions.call.tolist(), columns, strict=True):
        measurements = {name: float(f"{value:.9g}") for name, value in zip(values, numbers, strict=True)}
        yield tile_feature(left, top, right, bottom, CLASS_NAMES[call], measurements)


def tile_feature(
    left: float, top: float, right: float, bottom: float, kind: str, measurements: dict[str, float]
) -> dict[str, Any]:
    """Return a rectangle as a feature that QuPath takes for a tile."""
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return _feature({"type": "Polygon", "coordinates": [ring]}, "tile", kind, measurements)


def region_features(found: TissueMap) -> Iterator[dict[str, Any]]:
    """Yield the outlined tissue and the outlined IDC as annotations."""
    if found.tissue is not None and found.tissue.any():
        yield annotation("Tissue", found.tissue_outline)
    if found.called.any():
        yield annotation("IDC", found.idc_outline, {"area mm²": round(found.idc_area, 6)})


def annotation(kind: str, geometry: Any, measurements: dict[str, float] | None = None) -> dict[str, Any]:
    """Return an outlined region as a feature."""
    rounded = shapely.transform(geometry, lambda points: np.round(points, DECIMALS))
    return _feature(rounded.__geo_interface__, "annotation", kind, measurements or {})


def _feature(geometry: dict[str, Any], kind: str, name: str, measurements: dict[str, float]) -> dict[str, Any]:
    return {
        "type": "Feature",
        # QuPath wants a UUID; one made of the place gives one file for one map.
        "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{kind} {name} {geometry['coordinates']!r}")),
        "geometry": geometry,
        "properties": {
            "objectType": kind,
            "classification": {"name": name, "color": COLOURS[name]},
            "measurements": measurements,
        },
    }


def write_geojson(path: Path, features: Iterable[dict[str, Any]]) -> None:
    """Write a FeatureCollection, a feature a line, none of them kept in memory."""
    encode = json.JSONEncoder(ensure_ascii=False).encode  # `dumps` would make an encoder for each feature
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(features):
            file.write((",\n" if number else "\n") + encode(feature))
        file.write("\n]}\n")
