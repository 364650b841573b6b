"""Stains of a slide as amounts in optical density: to vary them in training, or to bring all cases to the same ones.

Light falls exponentially with the stain it passes (Beer-Lambert), so amounts of stain are linear in optical density.
Images are float (B, 3, H, W) in [0, 1]; an optical density of 0 is white.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cancernet.data.store.store import PatchStore, spread

STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
"""Optical density of haematoxylin, eosin and the residual in red, green, blue: Ruifrok & Johnston 2001."""
STAIN_SCALE = 0.2
"""Each stain's amount is multiplied by a number from 1 - 0.2 to 1 + 0.2 and shifted by up to 0.05, the range of strong
stain augmentation in Tellez et al., Medical Image Analysis 2019."""
STAIN_SHIFT = 0.05

TISSUE_DENSITY = 0.1
"""Mean optical density of the three channels above which a pixel is taken for tissue; glass has next to none."""
REFERENCE_MEAN = (0.30, 0.48, 0.31)
"""Optical density that each channel of a case is brought to. Any fixed values would do, as all cases meet there: this
is a paler stain than that of the median case in a sample of the archive (0.25, 0.62, 0.39; deviations 0.19, 0.29,
0.18)."""
REFERENCE_DEVIATION = (0.22, 0.24, 0.16)
CASE_SAMPLE = 64
"""So many patches of a case, spread over it, tell its stains well enough."""


def optical_density(image: Tensor) -> Tensor:
    """Return the natural logarithm of the light that is lost, 0 to 5.5."""
    # One intensity step is added so that black has a finite density, and taken off again on the way back.
    return -torch.log((image * 255 + 1) / 256)


def transmitted(density: Tensor) -> Tensor:
    """Return the image of an optical density: the way back from `optical_density`."""
    return ((torch.exp(-density) * 256 - 1) / 255).clamp(0, 1)


def jitter_stains(image: Tensor, generator: torch.Generator) -> Tensor:
    """Vary the amount of each stain: taken apart into the stains of `STAINS`, scaled, shifted, put together again.

    Args:
        image: (B, 3, H, W) float in [0, 1].
        generator: Source of all random numbers, on the image's device.

    Returns:
        (B, 3, H, W) float in [0, 1].
    """
    stains = F.normalize(torch.tensor(STAINS, device=image.device, dtype=image.dtype))
    uniform = torch.rand(2, len(image), 3, generator=generator, device=image.device, dtype=image.dtype) * 2 - 1
    scale = 1 + uniform[0] * STAIN_SCALE
    mixing = torch.linalg.inv(stains) @ (scale[:, :, None] * stains)
    density = torch.einsum("bchw,bcd->bdhw", optical_density(image), mixing)
    return transmitted(density + ((uniform[1] * STAIN_SHIFT) @ stains)[:, :, None, None])


def measure_stains(store: PatchStore, codes: np.ndarray, share: float = 1.0) -> Tensor:
    """Measure the optical density of each case's tissue, per channel.

    A case with much tumour is darker for that reason too, so to bring all cases to the same density takes away a part
    of what tells them apart. With a share below 1 the measurement is drawn towards the reference, and
    `normalize_stains` leaves the rest of each case's difference as it is.

    Args:
        store: The patches.
        codes: (N,) int64 number of each patch's case, from 0.
        share: How much of a case's difference from the reference counts, 0 to 1.

    Returns:
        (cases, 2, 3) float32: mean and standard deviation; the reference's own for a case without tissue.
    """
    reference = torch.tensor([REFERENCE_MEAN, REFERENCE_DEVIATION])
    statistics = reference.repeat(codes.max() + 1, 1, 1)
    order = np.argsort(codes, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        chosen = rows[spread(len(rows), CASE_SAMPLE)]
        density = optical_density(torch.from_numpy(store.gather(chosen)).float() / 255).reshape(-1, 3)
        tissue = density[density.mean(dim=1) > TISSUE_DENSITY]
        if len(tissue) > 1:
            measured = torch.stack([tissue.mean(dim=0), tissue.std(dim=0)])
            statistics[codes[rows[0]]] = torch.lerp(reference, measured, share)
    return statistics


def normalize_stains(image: Tensor, statistics: Tensor) -> Tensor:
    """Bring images to the reference's optical density (E. Reinhard et al. 2001, here in optical density).

    Args:
        image: (B, 3, H, W) float in [0, 1].
        statistics: (B, 2, 3): mean and standard deviation of each image's case.

    Returns:
        (B, 3, H, W) float in [0, 1].
    """
    mean, deviation = statistics[:, :, :, None, None].unbind(dim=1)
    wanted, spread = (image.new_tensor(values)[:, None, None] for values in (REFERENCE_MEAN, REFERENCE_DEVIATION))
    return transmitted((optical_density(image) - mean) / deviation.clamp(min=1e-3) * spread + wanted)
