"""What the page says of one image: words, pictures and files to download."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cancernet.data.augment import scale_and_augment
from cancernet.data.store.decode import SIDE
from cancernet.evaluation.figures import SYNTHETIC_NOTE
from cancernet.evaluation.report.maps import draw_activation
from cancernet.model.activation_map import class_activation
from cancernet.slides.command import say
from cancernet.slides.geometry import region_features, tile_features, write_geojson
from cancernet.slides.images import to_patches
from cancernet.slides.opening import open_source
from cancernet.slides.outputs import tile_table
from cancernet.slides.pictures import draw_map
from cancernet.slides.predictor import Predictor

Kind = Literal["by size", "patch", "region or slide"]
SHOWN = 400
"""Side of a magnified patch in pixels."""


@dataclass(frozen=True)
class Answer:
    """What a model says of one image.

    Attributes:
        words: A sentence a line.
        picture: The patch, or the map of a region over its tissue.
        activation: The patch, or the region's tile that is most certainly IDC, next to where its score comes from.
        table: CSV file of the probabilities.
        geojson: GeoJSON file for QuPath; None for a patch.
    """

    words: str
    picture: Image.Image
    activation: Image.Image
    table: Path
    geojson: Path | None


def answer(predictor: Predictor, file: Path, mpp: float | None, kind: Kind, folder: Path) -> Answer:
    """Predict one image.

    Args:
        predictor: The model.
        file: A patch, a region or a slide.
        mpp: Micrometres a pixel, in place of the file's own.
        kind: What it shows; by size, what is less than two patches wide and high is one patch.
        folder: Where the files to download go.

    Raises:
        InputError: It cannot be read, is too small, holds no tissue, or is no bright-field image.
    """
    if kind == "by size":
        source = open_source(file, mpp)
        source.close()
        kind = "patch" if max(source.width, source.height) < 2 * SIDE * source.factor else "region or slide"
    return (_answer_patch if kind == "patch" else _answer_region)(predictor, file, mpp, folder)


def _answer_patch(predictor: Predictor, file: Path, mpp: float | None, folder: Path) -> Answer:
    found = predictor.predict(file, mpp)
    (patch,), _ = to_patches([file], mpp)
    called = bool(found.call[0])
    words = [
        f"Called {'IDC' if called else 'benign'}: probability of IDC {found.probability[0]:.4f}, "
        f"{'at or above' if called else 'below'} the threshold {found.threshold:.4g}."
    ]
    if predictor.temperature is not None:
        words.append(f"Calibrated probability: {found.calibrated[0]:.4f}.")
    words += [f"Note: {note}." for note in found.notes]
    table = folder / "prediction.csv"
    found.table.to_csv(table, index=False, float_format="%.9g")
    return Answer(_joined(words, predictor.synthetic), _magnified(patch), _explain(predictor, patch), table, None)


def _answer_region(predictor: Predictor, file: Path, mpp: float | None, folder: Path) -> Answer:
    found = predictor.map(file, mpp)
    words = [f"{say(found.summary)}.", *(f"Note: {note}." for note in found.predictions.notes)]
    words.append("Where the model looks: the tile that is most certainly IDC.")
    stream = io.BytesIO()
    draw_map(found).savefig(stream, format="png")
    table, geojson = folder / "predictions.csv", folder / "map.geojson"
    tile_table(found).to_csv(table, index=False, float_format="%.9g")
    write_geojson(geojson, (feature for part in (region_features, tile_features) for feature in part(found)))
    activation = _explain(predictor, found.certain_tiles[0], found.stains)
    return Answer(_joined(words, found.synthetic), Image.open(stream), activation, table, geojson)


def _joined(words: list[str], synthetic: bool) -> str:
    return "\n".join([*words, *([f"{SYNTHETIC_NOTE.capitalize()}: says nothing of real tissue."] if synthetic else [])])


def _magnified(patch: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(patch).resize((SHOWN, SHOWN), Image.Resampling.BICUBIC)


def _explain(predictor: Predictor, patch: NDArray[np.uint8], stains: NDArray[np.float32] | None = None) -> Image.Image:
    """Draw a patch next to what its cells add to the log-odds of IDC."""
    pixels = torch.from_numpy(patch.copy())[None].permute(0, 3, 1, 2).to(predictor.device)
    statistics = None if stains is None else torch.from_numpy(stains)[None].to(predictor.device)
    image = scale_and_augment(pixels, (), 0, statistics)
    size = (predictor.trained.image_size,) * 2
    image = torch.nn.functional.interpolate(image, size, mode="bilinear", antialias=True)
    cells = class_activation(predictor.trained.network, image)[0].float().cpu().numpy()
    pair = Image.new("RGB", (2 * SHOWN, SHOWN))
    pair.paste(_magnified(patch))
    pair.paste(draw_activation(cells).resize((SHOWN, SHOWN), Image.Resampling.NEAREST), (SHOWN, 0))
    return pair
