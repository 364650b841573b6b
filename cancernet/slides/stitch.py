"""`cancernet stitch`: put the patches of a case back together, as a pyramid that slide viewers open."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cancernet.data.store.decode import ARCHIVE_MPP, SIDE
from cancernet.data.store.find import find_store
from cancernet.data.store.store import PatchStore
from cancernet.errors import InputError, listing
from cancernet.evaluation.figures import CLASS_NAMES
from cancernet.files import new_folder
from cancernet.slides.extra import tifffile
from cancernet.slides.geometry import annotation, outline, tile_feature, write_geojson

TILE = 256
"""Side of a tile in the pyramid."""
SMALLEST = 512
"""Levels are added until the longest side is not longer than this."""
MOST_PIXELS = 2**28
"""Of a stitched slide: 0.8 GB. Slides of the archive have less than a twentieth."""
GLASS = 255
BENIGN, IDC = 100, 255
"""Values in `labels.png`; 0 where no patch lies."""


def stitch(archive: str, case: str | None = None, output: Path | None = None, cache: str | None = None) -> None:
    """Write a slide of an archive as a tiled pyramidal TIFF, with its labels as a picture and for QuPath.

    `slide.tif` (4 micrometres a pixel; white where the archive holds no patch), `labels.png` (0 no patch, 100 benign,
    255 IDC; a mask for `map --truth`) and `labels.geojson`.

    Args:
        archive: The Kaggle zip, its unpacked folder, another archive with positions, or `synthetic`.
        case: Number of the case, such as 8865.
        output: Folder to write, absent or empty; `case-N` where not given.
        cache: Folder for packed stores; the user's cache folder where not given.

    Raises:
        InputError: No such archive or case, positions that are unknown or too far apart, or a folder that is in use.
    """
    store = find_store(archive, cache)
    if case is None:
        raise InputError(f"--case: name a case of {store.name}, which holds {_some_cases(store)}")
    output = Path(f"case-{case}") if output is None else output
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output {output}: exists and is not empty; name another folder")
    rows = _rows_of(store, case)
    table = store.index.iloc[rows]
    x, y, width, height = (table[name].to_numpy(dtype=np.int64) for name in ("x", "y", "width", "height"))
    label = table["label"].to_numpy()
    first = min(1, int(x.min()), int(y.min()))  # the archive counts from 1, others from 0
    left, top = x - first, y - first
    slide, labels = lay_out(store, rows, left, top, width, height, label)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with new_folder(output) as place:
            write_pyramid(place / "slide.tif", slide, {"case": case, "data": store.name, "synthetic": store.synthetic})
            Image.fromarray(labels).save(place / "labels.png")
            write_geojson(place / "labels.geojson", _features(left, top, label, labels.shape, labels == IDC))
    except OSError as error:
        raise InputError(f"{output}: cannot be written ({error.strerror}); give another --output") from error
    said = f"{len(rows):,} patches of case {case}, {slide.shape[1]:,} x {slide.shape[0]:,} pixels"
    print(f"{output}: {said}{' (synthetic data)' if store.synthetic else ''}")


def _rows_of(store: PatchStore, case: str) -> NDArray[np.int64]:
    """Return the rows of a case whose position is known."""
    rows = np.flatnonzero((store.index["case"] == case).to_numpy())
    if not len(rows):
        raise InputError(f"--case {case}: not in {store.name}, which holds {_some_cases(store)}")
    table = store.index.iloc[rows]
    placed = ((table["x"] >= 0) & (table["y"] >= 0)).to_numpy()
    if not placed.all():
        raise InputError(
            f"--case {case}: {int((~placed).sum())} of its patches have no known position; stitch needs x and y"
        )
    if max(int(table["width"].max()), int(table["height"].max())) > SIDE:
        raise InputError(f"--case {case}: its images were resized to patches; stitch needs patches of {SIDE} pixels")
    if (int(table["x"].max()) + SIDE) * (int(table["y"].max()) + SIDE) > MOST_PIXELS:
        raise InputError(f"--case {case}: its positions lie further apart than on any slide; check x and y")
    return rows


def _some_cases(store: PatchStore) -> str:
    return listing(sorted(map(str, store.index["case"].unique())))


def lay_out(
    store: PatchStore,
    rows: NDArray[np.int64],
    left: NDArray[np.int64],
    top: NDArray[np.int64],
    width: NDArray[np.int64],
    height: NDArray[np.int64],
    label: NDArray[np.integer],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Put patches into their places.

    Args:
        store: Holds them.
        rows: (N,) of the store.
        left: (N,) left edge of each in pixels.
        top: (N,) upper edge.
        width: (N,) of each without what was padded.
        height: (N,) likewise.
        label: (N,) 1 IDC, 0 benign.

    Returns:
        The slide, uint8 (H, W, 3), and its labels, uint8 (H, W).
    """
    slide = np.full((int((top + height).max()), int((left + width).max()), 3), GLASS, np.uint8)
    labels = np.zeros(slide.shape[:2], np.uint8)
    for number, row in enumerate(rows):
        place = np.s_[top[number] : top[number] + height[number], left[number] : left[number] + width[number]]
        slide[place] = store.images[row, : height[number], : width[number]]
        labels[place] = IDC if label[number] else BENIGN
    return slide, labels


def write_pyramid(path: Path, pixels: NDArray[np.uint8], description: dict[str, Any]) -> None:
    """Write an image (H, W, 3) as a tiled TIFF without loss, each level half as fine as the one before.

    Args:
        path: The file.
        pixels: At 4 micrometres a pixel.
        description: Goes into the file as JSON.
    """
    with tifffile.TiffWriter(path, bigtiff=pixels.nbytes > 2**31) as file:
        step = 1
        while True:
            dots = 10_000 / (ARCHIVE_MPP * step)
            file.write(
                pixels,
                tile=(TILE, TILE),
                photometric="rgb",
                compression="zlib",
                predictor=True,
                subfiletype=int(step > 1),
                resolution=(dots, dots),
                resolutionunit="CENTIMETER",
                description=json.dumps(description) if step == 1 else None,
                metadata=None,
            )
            if max(pixels.shape) <= SMALLEST:
                break
            size = max(1, pixels.shape[1] // 2), max(1, pixels.shape[0] // 2)
            pixels, step = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX)), 2 * step


def _features(
    left: NDArray[np.int64],
    top: NDArray[np.int64],
    label: NDArray[np.integer],
    shape: tuple[int, ...],
    tumour: NDArray[np.bool_],
) -> Iterator[dict[str, Any]]:
    height, width = shape
    if tumour.any():
        yield annotation("IDC", outline(tumour, 1.0, width, height))
    for x, y, kind in zip(left.tolist(), top.tolist(), label.tolist(), strict=True):
        yield tile_feature(x, y, min(x + SIDE, width), min(y + SIDE, height), CLASS_NAMES[kind], {})
