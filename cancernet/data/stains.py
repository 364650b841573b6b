"""Vary the stains of a slide in training, or normalize those of all cases to the same reference.

Light is absorbed exponentially with the amount of stain (Beer-Lambert), so amounts are linear in optical density.
Images are float (B, 3, H, W) in [0, 1]; an optical density of 0 is white.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cancernet.data.archive.layout import UNKNOWN_CASE
from cancernet.data.batches import evenly_spaced
from cancernet.data.store.store import PatchStore

STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
"""Optical density of haematoxylin, eosin and the residual in red, green, blue: Ruifrok & Johnston 2001."""
STAIN_SCALE = 0.2
"""Each stain's amount is multiplied by a number from 1 - 0.2 to 1 + 0.2 and shifted by up to 0.05, the range of strong
stain augmentation in Tellez et al., Medical Image Analysis 2019."""
STAIN_SHIFT = 0.05

TISSUE_DENSITY = 0.1
"""Mean optical density of the three channels above which a pixel counts as tissue; glass has next to none."""
REFERENCE_MEAN = (0.30, 0.48, 0.31)
"""Mean optical density of each channel after normalization. Any fixed values would do; these are paler than the median
case in a sample of the archive (means 0.25, 0.62, 0.39; deviations 0.19, 0.29, 0.18)."""
REFERENCE_DEVIATION = (0.22, 0.24, 0.16)
CASE_SAMPLE = 64
"""Patches sampled per case to estimate its stain statistics."""


def optical_density(image: Tensor) -> Tensor:
    """Return the optical density of an image: minus the natural logarithm of the transmitted light, 0 to 5.55.

    >>> optical_density(torch.tensor([1.0, 0.5, 0.0]))
    tensor([-0.0000, 0.6892, 5.5452])
    """
    # One intensity step is added so that black has a finite density, and taken off again on the way back.
    return -torch.log((image * 255 + 1) / 256)


def transmitted(density: Tensor) -> Tensor:
    """Return the image of an optical density, in [0, 1]: the inverse of `optical_density`.

    >>> transmitted(torch.tensor([0.0, 0.6892, 5.5452]))
    tensor([1.0000, 0.5000, 0.0000])
    """
    return ((torch.exp(-density) * 256 - 1) / 255).clamp(0, 1)


def jitter_stains(image: Tensor, generator: torch.Generator) -> Tensor:
    """Vary the amount of each stain: separate the stains of `STAINS`, scale and shift each, and add them up again.

    Args:
        image: (B, 3, H, W) float in [0, 1].
        generator: Source of all random numbers, on the image's device.

    Returns:
        (B, 3, H, W) float in [0, 1].

    >>> jitter_stains(torch.ones(1, 3, 1, 1) / 2, torch.Generator().manual_seed(0)).flatten()
    tensor([0.5267, 0.5657, 0.5441])
    """
    stains = F.normalize(torch.tensor(STAINS, device=image.device, dtype=image.dtype))
    uniform = torch.rand(2, len(image), 3, generator=generator, device=image.device, dtype=image.dtype) * 2 - 1
    scale = 1 + uniform[0] * STAIN_SCALE
    mixing = torch.linalg.inv(stains) @ (scale[:, :, None] * stains)
    density = torch.einsum("bchw,bcd->bdhw", optical_density(image), mixing)
    return transmitted(density + ((uniform[1] * STAIN_SHIFT) @ stains)[:, :, None, None])


def measure_stains(store: PatchStore, codes: np.ndarray, share: float = 1.0) -> Tensor:
    """Measure the optical density of each case's tissue, per channel.

    A case with much tumour is darker for that reason too, so full normalization removes some of what tells cases apart.
    A share below 1 moves the measurement towards the reference, and `normalize_stains` then keeps the rest of each
    case's difference.

    Args:
        store: The patches.
        codes: (N,) int64 number of each patch's case, from 0.
        share: Weight of the measurement against the reference, 0 to 1.

    Returns:
        (cases, 2, 3) float32: mean and standard deviation; those of the reference for a case without tissue.
    """
    statistics = _reference().repeat(codes.max() + 1, 1, 1)
    order = np.argsort(codes, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        chosen = rows[evenly_spaced(len(rows), CASE_SAMPLE)]
        statistics[codes[rows[0]]] = tissue_statistics(torch.from_numpy(store.gather(chosen)), share)
    return statistics


class CaseStains:
    """The stain statistics of a store's cases; where the case is not known, those of the reference.

    Patches of an unknown case may come from any number of slides, whose stains cannot be told apart.

    Args:
        store: The patches.
        share: See `measure_stains`.
    """

    def __init__(self, store: PatchStore, share: float) -> None:
        from lightning.pytorch.utilities import rank_zero_warn  # which `map` does without, and takes seconds

        codes = store.case_code
        self._statistics = measure_stains(store, codes, share)
        unknown = (store.index["case"] == UNKNOWN_CASE).to_numpy()
        if unknown.any():
            self._statistics[codes[unknown]] = _reference()
            rank_zero_warn(
                f"This model normalises stains. The case of {int(unknown.sum()):,} patches is not known, so their "
                "stains are taken for those of the reference; folders or a CSV that name the cases let them be measured"
            )

    def of(self, case: Tensor) -> Tensor:
        """Return the statistics (B, 2, 3) of the cases with these codes (B,), on their device."""
        self._statistics = self._statistics.to(case.device)
        return self._statistics[case]


def tissue_statistics(pixels: Tensor, share: float = 1.0) -> Tensor:
    """Measure the optical density of the tissue in some pixels, per channel.

    Args:
        pixels: (..., 3) uint8, RGB.
        share: Weight of the measurement against the reference, 0 to 1.

    Returns:
        (2, 3) float32: mean and standard deviation; those of the reference where nothing is tissue.

    >>> tissue_statistics(torch.tensor([[128, 128, 128], [64, 64, 64]], dtype=torch.uint8))[0]
    tensor([1.0281, 1.0281, 1.0281])
    """
    density = optical_density(pixels.float() / 255).reshape(-1, 3)
    tissue = density[density.mean(dim=1) > TISSUE_DENSITY]
    if len(tissue) < 2:
        return _reference()
    return torch.lerp(_reference(), torch.stack([tissue.mean(dim=0), tissue.std(dim=0)]), share)


def _reference() -> Tensor:
    return torch.tensor([REFERENCE_MEAN, REFERENCE_DEVIATION])


def normalize_stains(image: Tensor, statistics: Tensor) -> Tensor:
    """Normalize images to the optical density of the reference (Reinhard et al. 2001, here in optical density).

    Args:
        image: (B, 3, H, W) float in [0, 1].
        statistics: (B, 2, 3): mean and standard deviation of each image's case.

    Returns:
        (B, 3, H, W) float in [0, 1].

    >>> reference = torch.tensor([[REFERENCE_MEAN, REFERENCE_DEVIATION]])
    >>> normalize_stains(torch.ones(1, 3, 1, 1) / 2, reference).flatten()
    tensor([0.5000, 0.5000, 0.5000])
    """
    mean, deviation = statistics[:, :, :, None, None].unbind(dim=1)
    to_mean, to_deviation = (
        image.new_tensor(values)[:, None, None] for values in (REFERENCE_MEAN, REFERENCE_DEVIATION)
    )
    return transmitted((optical_density(image) - mean) / deviation.clamp(min=1e-3) * to_deviation + to_mean)
