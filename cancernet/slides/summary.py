"""`summary.json` of a map, as types, and how they are filled."""

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from cancernet import __version__
from cancernet.data.store.decode import SIDE
from cancernet.errors import InputError
from cancernet.evaluation.estimates import estimates
from cancernet.evaluation.metrics import confusion, rates
from cancernet.evaluation.values import Count, Fraction, Matrix, Record, Share, Threshold
from cancernet.slides.images import read_image
from cancernet.slides.tissue import shares
from cancernet.slides.tissue_map import TissueMap

NOTICE = "Research software: never a diagnosis, no decision about a patient."
MASK_LEVEL = 127
"""A mask says IDC where its value, 0 to 255, is above this."""
MOST_DISTORTED = 0.02
"""Relative difference of the sides' ratio beyond which a mask is another picture's."""


class Agreement(Record):
    """A map against an expert's mask. Tiles of one slide are not independent: no interval is given."""

    mask: str
    tiles: Count
    prevalence: Share = Field(description="Share of the tiles that the mask fills by more than half.")
    auroc: Share
    threshold: Threshold
    confusion_matrix: Matrix
    sensitivity: Share
    specificity: Share
    balanced_accuracy: Share
    dice: Share = Field(
        description="Of the outlined area and the mask, in cells; cells without tissue count as benign."
    )


class MapSummary(Record):
    """`summary.json`: what a model says of a region or a slide."""

    notice: str
    version: str
    checkpoint: str
    file: str
    format: str
    width: Count = Field(description="Pixels of the finest level.")
    height: Count
    micrometres_a_pixel: float = Field(gt=0)
    scale_from: Literal["given", "file", "assumed"]
    stride: Count = Field(description="Pixels of the network, at 4 micrometres, from one tile to the next.")
    tiles: Count
    tissue_found: bool = Field(description="False where all tiles were predicted, without looking for tissue.")
    tissue_area_mm2: float
    idc_area_mm2: float
    idc_share: Share = Field(description="Of the tissue.")
    mean_probability: Share = Field(description="Over tiles, uncalibrated.")
    mean_probability_calibrated: Share
    threshold: Threshold
    temperature: float | None = Field(description="null where the checkpoint was not calibrated.")
    stain_normalization: Fraction
    stain_mean: list[float] | None = Field(description="Optical density of red, green, blue; null where stains stay.")
    stain_deviation: list[float] | None
    synthetic_tissue: bool = Field(description="A program drew the tissue.")
    synthetic_training: bool = Field(description="A program drew what trained the model.")
    assumptions: list[str]
    truth: Agreement | None = None
    plan: str = Field(default="", description="Hash of all that decided the map; another run compares it.")


def summarise(found: TissueMap, truth: Agreement | None = None, plan: str = "") -> MapSummary:
    """Collect the figures of a map."""
    source, predictions, stains = found.source, found.predictions, found.stains
    area = found.tissue_area
    return MapSummary(
        notice=NOTICE,
        version=__version__,
        checkpoint=found.predictor.name,
        file=found.name,
        format=source.format,
        width=source.width,
        height=source.height,
        micrometres_a_pixel=source.mpp,
        scale_from=source.mpp_from,
        stride=found.stride,
        tiles=len(found.left),
        tissue_found=found.tissue is not None,
        tissue_area_mm2=area,
        idc_area_mm2=found.idc_area,
        idc_share=min(1.0, found.idc_area / area) if area else None,
        mean_probability=float(predictions.probability.mean()),
        mean_probability_calibrated=float(predictions.calibrated.mean()),
        threshold=predictions.threshold,
        temperature=found.predictor.temperature,
        stain_normalization=found.predictor.stain_normalization,
        stain_mean=None if stains is None else stains[0].tolist(),
        stain_deviation=None if stains is None else stains[1].tolist(),
        synthetic_tissue=source.synthetic,
        synthetic_training=found.predictor.synthetic,
        assumptions=list(predictions.notes),
        truth=truth,
        plan=plan,
    )


def compare_with_mask(found: TissueMap, path: Path) -> tuple[Agreement, np.ndarray]:
    """Compare a map with an expert's mask of the same region.

    Args:
        found: The map.
        path: An image of the region's shape, of any size: IDC where its value is above 127 of 255.

    Returns:
        The figures, and (R, C) whether the mask fills a cell by more than half.

    Raises:
        InputError: The mask cannot be read or has another shape.
    """
    mask = read_image(path).max(axis=2) > MASK_LEVEL
    height, width = mask.shape
    ratio = (width / height) / (found.source.width / found.source.height)
    if abs(ratio - 1) > MOST_DISTORTED:
        raise InputError(
            f"--truth {path}: {width} x {height} pixels do not have the shape of {found.name} "
            f"({found.source.width} x {found.source.height}); give a mask of the same region"
        )
    rows, columns = found.tissue_share.shape
    cells = shares(
        mask,
        np.arange(rows + 1) * found.cell_pixels * height / found.source.height,
        np.arange(columns + 1) * found.cell_pixels * width / found.source.width,
    )
    # What lies beyond the edge belongs to no cell, neither as tumour nor as benign.
    on_slide = shares(
        np.ones((1, 1), bool),
        np.arange(rows + 1) * found.cell_pixels / found.source.height,
        np.arange(columns + 1) * found.cell_pixels / found.source.width,
    )
    side = SIDE // found.stride
    filled, covered = (
        np.lib.stride_tricks.sliding_window_view(np.pad(part, ((0, side), (0, side))), (side, side)).sum(axis=(2, 3))[
            found.top // found.stride, found.left // found.stride
        ]
        for part in (cells, on_slide)
    )
    label = (2 * filled > covered).astype(np.int64)
    threshold = found.predictions.threshold
    matrix = confusion(label, found.probability, threshold)
    truth = 2 * cells > on_slide
    area = confusion(truth.ravel(), np.nan_to_num(found.grid.ravel()), threshold)
    figures = rates(matrix)
    return (
        Agreement(
            mask=path.name,
            tiles=len(label),
            prevalence=figures["prevalence"],
            auroc=estimates(label, found.probability, metrics=["auroc"])["auroc"],
            threshold=threshold,
            confusion_matrix=matrix.matrix,
            sensitivity=figures["sensitivity"],
            specificity=figures["specificity"],
            balanced_accuracy=figures["balanced_accuracy"],
            dice=rates(area)["f1"],
        ),
        truth,
    )
