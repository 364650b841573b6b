"""Augmentation as batched tensor code, run where the model is.

The functions take and return float images (B, 3, H, W) in [0, 1] with H = W, and draw all their random numbers from
the generator they are given, so that a batch is the same whenever it is drawn again.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Augmentation = Literal["none", "original", "modern"]

ROTATION = 20.0
"""Degrees to either side; this and the next two are the 2019 recipe's (its shear of 0.05 degrees moves the corner of a
patch by 0.02 pixels and is left out)."""
ZOOM = 0.05
SHIFT = 0.1
"""Fraction of the patch's side."""

STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
"""Optical density of haematoxylin, eosin and the residual in red, green, blue: Ruifrok & Johnston 2001."""
STAIN_SCALE = 0.2
"""Each stain's amount is multiplied by a number from 1 - 0.2 to 1 + 0.2 and shifted by up to 0.05, the range of strong
stain augmentation in Tellez et al., Medical Image Analysis 2019."""
STAIN_SHIFT = 0.05


def scale_and_augment(pixels: Tensor, recipe: Augmentation, seed: int) -> Tensor:
    """Turn the pixels of a batch into what the network takes, on whatever device they are.

    Args:
        pixels: (B, 3, H, W) uint8.
        recipe: As `augment` takes it.
        seed: Determines the augmentation.

    Returns:
        (B, 3, H, W) float32 in [0, 1], in channels-last memory format.
    """
    image = pixels.float().div_(255)
    if recipe != "none":
        image = augment(image, recipe, torch.Generator(image.device).manual_seed(seed))
    return image.contiguous(memory_format=torch.channels_last)


def augment(image: Tensor, recipe: Augmentation, generator: torch.Generator) -> Tensor:
    """Apply a recipe by name.

    Args:
        image: (B, 3, H, W) float in [0, 1].
        recipe: `none`; `original`, the 2019 recipe; `modern`, all eight symmetries of the square and stain jitter.
        generator: Source of all random numbers, on the image's device.

    Returns:
        (B, 3, H, W) float in [0, 1].
    """
    if recipe == "original":
        return warp(image, original_transforms(len(image), generator))
    if recipe == "modern":
        return jitter_stains(turn_and_flip(image, generator), generator)
    return image


def original_transforms(count: int, generator: torch.Generator) -> Tensor:
    """Draw the affine transforms of the 2019 recipe.

    The order is that of Keras' `ImageDataGenerator`: output coordinates are flipped, zoomed (each axis on its own),
    shifted and rotated about the centre to find the input coordinates.

    Returns:
        (count, 2, 3) float: output to input, in units of half a side, as `torch.nn.functional.affine_grid` takes them.
    """
    uniform = torch.rand(count, 7, generator=generator, device=generator.device) * 2 - 1
    angle = torch.deg2rad(uniform[:, 0] * ROTATION)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rotation = torch.stack([cos, -sin, sin, cos], dim=1).view(count, 2, 2)
    flip = torch.where(uniform[:, 3:5] < 0, -1.0, 1.0)
    zoom = (1 + uniform[:, 1:3] * ZOOM) * flip
    shift = uniform[:, 5:7] * (2 * SHIFT)
    return torch.cat([rotation * zoom[:, None, :], rotation @ shift[:, :, None]], dim=2)


def warp(image: Tensor, transform: Tensor) -> Tensor:
    """Resample each image under its own affine transform, bilinearly; beyond the edge the edge is repeated.

    Args:
        image: (B, 3, H, W) float.
        transform: (B, 2, 3), output to input coordinates in units of half a side.

    Returns:
        (B, 3, H, W) float.
    """
    grid = F.affine_grid(transform.to(image.dtype), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=False)


def turn_and_flip(image: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by one of the eight symmetries of the square, without interpolation.

    Returns:
        (B, 3, H, W), every pixel one of the input's.
    """
    choice = torch.rand(3, len(image), 1, 1, 1, generator=generator, device=image.device) < 0.5
    image = torch.where(choice[0], image.transpose(2, 3), image)
    image = torch.where(choice[1], image.flip(2), image)
    return torch.where(choice[2], image.flip(3), image)


def jitter_stains(image: Tensor, generator: torch.Generator) -> Tensor:
    """Vary the amount of each stain in optical density.

    Light falls exponentially with the stain it passes (Beer-Lambert), so amounts are linear in optical density: it is
    taken apart into the stains of `STAINS`, each is scaled and shifted, and put together again.

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
    # One intensity step is added so that black has a finite density, and taken off again at the end.
    density = -torch.log((image * 255 + 1) / 256)
    density = torch.einsum("bchw,bcd->bdhw", density, mixing)
    density = density + ((uniform[1] * STAIN_SHIFT) @ stains)[:, :, None, None]
    return ((torch.exp(-density) * 256 - 1) / 255).clamp(0, 1)
