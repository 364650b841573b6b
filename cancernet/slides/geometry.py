"""GeoJSON of a map that QuPath opens: tiles as objects with measurements, tissue and IDC as outlined annotations."""

import json
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

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
        A polygon, several, or an empty one; the exterior counterclockwise, holes clockwise (RFC 7946, 3.1.6).

    >>> ring = np.ones((3, 3), bool)
    >>> ring[1, 1] = False
    >>> found = outline(ring, 10.0, 30.0, 25.0)
    >>> found.area, len(found.interiors), found.exterior.is_ccw
    (650.0, 1, True)
    """
    change = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (row, first), last = np.nonzero(change == 1), np.nonzero(change == -1)[1]
    runs = shapely.union_all(shapely.box(first, row, last, row + 1))
    scaled = shapely.transform(runs, lambda points: points * cell)
    cut = shapely.intersection(scaled, shapely.box(0, 0, width, height))
    return shapely.orient_polygons(shapely.simplify(cut, 0))


def tile_features(found: TissueMap) -> Iterator[dict[str, Any]]:
    """Yield each tile as a feature, in pixels of the finest level, cut at the slide's edge."""
    factor, source, predictions = found.source.factor, found.source, found.predictions
    x0, y0 = found.left * factor, found.top * factor
    x1, y1 = np.minimum(x0 + SIDE * factor, source.width), np.minimum(y0 + SIDE * factor, source.height)
    corners = np.round(np.stack([x0, y0, x1, y1], axis=1), DECIMALS).tolist()
    for number, (left, top, right, bottom) in enumerate(corners):
        measurements = {"probability": predictions.probability[number], "logit": predictions.logit[number]}
        if found.predictor.temperature is not None:
            measurements["probability calibrated"] = predictions.calibrated[number]
        kind = CLASS_NAMES[int(predictions.call[number])]
        written = {name: float(f"{value:.9g}") for name, value in measurements.items()}
        yield tile_feature(left, top, right, bottom, kind, written)


def tile_feature(
    left: float, top: float, right: float, bottom: float, kind: str, measurements: dict[str, float]
) -> dict[str, Any]:
    """Return a rectangle as a feature that QuPath takes for a tile."""
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return _feature({"type": "Polygon", "coordinates": [ring]}, "tile", kind, measurements)


def region_features(found: TissueMap) -> Iterator[dict[str, Any]]:
    """Yield the outlined tissue and the outlined IDC as annotations."""
    source = found.source
    if found.tissue is not None and found.tissue.any():
        cell = source.width / found.tissue.shape[1]
        yield annotation("Tissue", outline(found.tissue, cell, source.width, source.height))
    if found.called.any():
        area = {"area mm²": round(found.idc_area, 6)}
        yield annotation("IDC", outline(found.called, found.cell_pixels, source.width, source.height), area)


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
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(features):
            file.write((",\n" if number else "\n") + json.dumps(feature, ensure_ascii=False))
        file.write("\n]}\n")
