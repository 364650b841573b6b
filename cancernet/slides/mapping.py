"""Run a model over a region or a slide: tissue, tiles, logits; a run that stopped goes on where it was."""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from cancernet import __version__
from cancernet.data.batches import evenly_spaced
from cancernet.data.stains import CASE_SAMPLE, tissue_statistics
from cancernet.data.store.decode import ARCHIVE_MPP, SIDE
from cancernet.errors import InputError
from cancernet.files import write_json
from cancernet.slides.images import ImageLike, resize
from cancernet.slides.opening import open_source
from cancernet.slides.plan import plan_tiles
from cancernet.slides.predictor import Predictor
from cancernet.slides.source import Pixels, Source
from cancernet.slides.tiles import IntArray, Stride, read_tiles
from cancernet.slides.tissue import Mask, stain_warning
from cancernet.slides.tissue_map import TissueMap

SHOWN = 12
"""Tiles that are shown of each call, the most certain ones."""
PLAN, LOGITS = "plan.json", "logits.npy"

log = logging.getLogger("cancernet")
"""Notes go to the caller's log as they arise; they also stand in the result."""


def map_image(
    predictor: Predictor,
    image: ImageLike,
    mpp: float | None = None,
    stride: Stride = 50,
    tissue: bool = True,
    work: Path | None = None,
    progress: bool = False,
) -> TissueMap:
    """Predict a region or a slide tile by tile.

    Args:
        predictor: The model.
        image: A file, a Pillow image or an array (H, W, 3).
        mpp: Micrometres a pixel of the finest level, in place of the file's own.
        stride: Pixels of the network, at 4 micrometres, from one tile to the next: 5, 10, 25 or 50. Where tiles
            overlap their probabilities are averaged.
        tissue: Leave out tiles without tissue.
        work: Folder that keeps what is done; with the same folder a run that stopped goes on where it was.
        progress: Show a progress bar.

    Raises:
        InputError: The image cannot be read or has no scale, holds no tissue, is no bright-field image, or `stride` is
            another number.
    """
    if stride not in Stride.__args__:  # type: ignore[attr-defined]
        raise InputError(
            f"stride: expected one of 5, 10, 25 and 50, which divide a patch of {SIDE} pixels; got {stride}"
        )
    with closing(open_source(image, mpp)) as source:
        tiles = plan_tiles(source, stride, tissue)
        left, top = tiles.left, tiles.top
        stains = _measure_stains(source, predictor, left, top)
        notes = _notes(source, predictor, tiles.overview, tiles.looks_like_tissue, tissue)
        for note in notes:
            log.warning("%s: %s", source.name, note)
        plan = {**plan_of(predictor, source, stride, tissue), "tiles": len(left)}
        with _logits(work, plan, len(left)) as logit:
            _predict(predictor, source, left, top, stride, stains, logit, progress)
            found = np.array(logit)
        certain = _most_certain(found, predictor)
        return TissueMap(
            source=source,
            predictor=predictor,
            stride=stride,
            left=left,
            top=top,
            predictions=predictor.interpret(found, notes),
            overview=tiles.overview,
            tissue=tiles.mask if tissue else None,
            tissue_share=tiles.cells,
            stains=None if stains is None else stains.numpy(),
            certain=certain,
            certain_tiles=_read_some(source, left[certain], top[certain]),
        )


def _measure_stains(source: Source, predictor: Predictor, left: IntArray, top: IntArray) -> Tensor | None:
    """Measure the stains as training does: on patches spread over the tissue."""
    if not predictor.stain_normalization:
        return None
    chosen = evenly_spaced(len(left), CASE_SAMPLE)
    tiles = _read_some(source, left[chosen], top[chosen])
    return tissue_statistics(torch.from_numpy(tiles), predictor.stain_normalization)


def _read_some(source: Source, left: IntArray, top: IntArray) -> Pixels:
    tiles = [source.read(source.factor, int(x), int(y), SIDE, SIDE) for x, y in zip(left, top, strict=True)]
    return np.stack(tiles) if tiles else np.empty((0, SIDE, SIDE, 3), np.uint8)


def _notes(source: Source, predictor: Predictor, overview: Pixels, mask: Mask, tissue: bool) -> list[str]:
    notes = []
    if source.mpp_from == "assumed":
        notes.append(
            f"the file does not say its scale: the archive's, {ARCHIVE_MPP:g} micrometres a pixel, was assumed"
        )
    if source.factor < 1 / 1.1:
        notes.append(
            f"its finest pixels of {source.mpp:.3g} micrometres are coarser than the {ARCHIVE_MPP:g} that the network "
            "knows: they were magnified"
        )
    shown = resize(overview, mask.shape[1], mask.shape[0])
    if warning := stain_warning(shown, mask):
        notes.append(warning)
    if not tissue:
        notes.append("all tiles were predicted, those without tissue too")
    if predictor.stain_normalization:
        notes.append("stains were measured on its own tissue and normalised")
    if predictor.temperature is None:
        notes.append("the model is not calibrated: it is called IDC from a probability of 0.5 on")
    return notes


def plan_of(predictor: Predictor, source: Source, stride: int, tissue: bool) -> dict[str, Any]:
    """Return what decides every logit of a map, to be compared with that of another run."""
    weights = hashlib.blake2b(digest_size=16)
    for value in predictor.trained.state_dict().values():
        weights.update(value.detach().cpu().numpy().tobytes())
    status = Path(source.name).stat() if Path(source.name).is_file() else None
    return {
        "version": __version__,
        "file": None if status is None else [str(Path(source.name).resolve()), status.st_size, status.st_mtime_ns],
        "mpp": source.mpp,
        "stride": stride,
        "tissue": tissue,
        "weights": weights.hexdigest(),
        "tta": predictor.trained.tta,
        "stain_normalization": predictor.stain_normalization,
        "device": predictor.device.type,
    }


@contextmanager
def _logits(work: Path | None, plan: dict[str, Any], count: int) -> Iterator[NDArray[np.float32]]:
    """Open (N,) logits, NaN where a tile is still to be predicted: those of a run that stopped, or new ones."""
    if work is None:
        yield np.full(count, np.nan, np.float32)
        return
    work.mkdir(parents=True, exist_ok=True)
    try:
        known = json.loads((work / PLAN).read_text(encoding="utf-8")) == plan
        values = np.load(work / LOGITS, mmap_mode="r+")
        known = known and values.shape == (count,) and values.dtype == np.float32
    except (OSError, ValueError):
        known = False
    if not known:
        (work / PLAN).unlink(missing_ok=True)
        values = np.lib.format.open_memmap(work / LOGITS, "w+", np.float32, (count,))
        values[:] = np.nan
        values.flush()
        write_json(work / PLAN, plan)  # last: logits without a plan are never gone on with
    try:
        yield values
    finally:
        values.flush()


def _predict(
    predictor: Predictor,
    source: Source,
    left: IntArray,
    top: IntArray,
    stride: int,
    stains: Tensor | None,
    logit: NDArray[np.float32],
    progress: bool,
) -> None:
    """Fill in the logits that are missing; tiles wait until they fill a batch."""
    missing = np.flatnonzero(np.isnan(logit))
    waiting = _Waiting([np.empty(0, np.int64)], [np.empty((0, SIDE, SIDE, 3), np.uint8)])
    bar = tqdm(
        total=len(logit),
        initial=len(logit) - len(missing),
        desc=Path(source.name).name,
        unit="tile",
        disable=not progress,
    )
    with bar:
        for numbers, tiles in read_tiles(source, left[missing], top[missing], stride):
            waiting.add(missing[numbers], tiles)
            ready, pixels = waiting.take(predictor.batch_size)
            logit[ready] = predictor.logits(pixels, stains)
            bar.update(len(ready))
        ready, pixels = waiting.take(1)
        logit[ready] = predictor.logits(pixels, stains)
        bar.update(len(ready))
    if not np.isfinite(logit).all():
        raise InputError("the network gives logits that are not finite; train it again, or give another checkpoint")


@dataclass
class _Waiting:
    """Tiles that were read and not yet predicted."""

    numbers: list[IntArray]
    tiles: list[Pixels]

    def add(self, numbers: IntArray, tiles: Pixels) -> None:
        self.numbers.append(numbers)
        self.tiles.append(tiles)

    def take(self, multiple: int) -> tuple[IntArray, Pixels]:
        """Take as many as fill whole batches; the rest waits."""
        numbers, tiles = np.concatenate(self.numbers), np.concatenate(self.tiles)
        ready = len(numbers) // multiple * multiple
        self.numbers, self.tiles = [numbers[ready:]], [tiles[ready:]]
        return numbers[:ready], tiles[:ready]


def _most_certain(logit: NDArray[np.float32], predictor: Predictor) -> IntArray:
    """Return the numbers of the tiles most certainly IDC, then of those most certainly benign."""
    call = predictor.interpret(logit).call
    order = np.argsort(-logit, kind="stable")
    return np.concatenate([order[call[order]][:SHOWN], order[~call[order]][::-1][:SHOWN]])
