"""Write a map into a folder that appears when it is complete."""

from pathlib import Path

import numpy as np
import pandas as pd

from cancernet.errors import InputError
from cancernet.evaluation.records import write_record
from cancernet.files import new_folder, remove_folder
from cancernet.slides.geometry import region_features, tile_features, write_geojson
from cancernet.slides.page import render
from cancernet.slides.pictures import draw_map, write_raw
from cancernet.slides.summary import compare_with_mask, summarise
from cancernet.slides.tissue_map import TissueMap

SUMMARY = "summary.json"
CHUNK = 100_000
"""Rows of a table that are text at a time."""


def write_map(found: TissueMap, folder: Path, truth: Path | None = None, plan: str = "") -> Path:
    """Write what a model says of a region or a slide.

    `predictions.csv` and `.parquet` (a row a tile), `map.png`, `map.tif` (raw values, with resolution), `map.geojson`
    (for QuPath), `summary.json` and `map.html`.

    Args:
        found: The map.
        folder: Absent or empty, or one that this function wrote, which is replaced.
        truth: An expert's mask of the same region, to compare with.
        plan: Hash of what decided the map.

    Returns:
        The folder.

    Raises:
        InputError: The mask does not fit, or the folder holds something else or cannot be written.
    """
    agreement, mask = (None, None) if truth is None else compare_with_mask(found, truth)
    summary = summarise(found, agreement, plan)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if (folder / SUMMARY).is_file():
            remove_folder(folder)
        with new_folder(folder) as place:
            table = tile_table(found)
            table.to_csv(place / "predictions.csv", index=False, float_format="%.9g", chunksize=CHUNK)
            table.to_parquet(place / "predictions.parquet", index=False)
            del table
            draw_map(found).savefig(place / "map.png", format="png")
            write_raw(place / "map.tif", found)
            features = (feature for part in (region_features, tile_features) for feature in part(found))
            write_geojson(place / "map.geojson", features)
            (place / "map.html").write_text(render(found, summary, mask), encoding="utf-8", newline="\n")
            write_record(place / SUMMARY, summary)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give another --output") from error
    return folder


def tile_table(found: TissueMap) -> pd.DataFrame:
    """Return one row a tile.

    Columns: x, y (pixels of the network at 4 micrometres), left, top, side (pixels of the finest level), logit,
    probability, probability_calibrated, call (1 IDC).
    """
    factor = found.source.factor
    place = {
        "x": found.left,
        "y": found.top,
        "left": np.round(found.left * factor, 2),
        "top": np.round(found.top * factor, 2),
        "side": round(50 * factor, 2),
    }
    return pd.concat([pd.DataFrame(place), found.predictions.table], axis=1)
