"""Augment batches of images, on the device of the model.

The functions take and return float images (B, 3, H, W) in [0, 1] with H = W and take all their random numbers from
the generator they are given, so that one seed gives one batch.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cancernet.data.stains import jitter_stains, normalize_stains

Operation = Literal["original", "symmetries", "rotation", "stain_jitter"]

ROTATION = 20.0
"""Degrees to either side; this and the next two are the 2019 recipe's (its shear of 0.05 degrees moves the corner of a
patch by 0.02 pixels and is left out)."""
ZOOM = 0.05
SHIFT = 0.1
"""Fraction of the patch's side."""


def scale_and_augment(
    pixels: Tensor, operations: Sequence[Operation], seed: int, stains: Tensor | None = None
) -> Tensor:
    """Scale the pixels of a batch to what the network takes, normalize the stains and augment.

    Args:
        pixels: (B, 3, H, W) uint8.
        operations: As `augment` takes them.
        seed: Determines the augmentation.
        stains: (B, 2, 3) optical density of each image's case, for `normalize_stains`; None leaves the stains.

    Returns:
        (B, 3, H, W) float32 in [0, 1], in channels-last memory format.

    >>> scale_and_augment(torch.full((1, 3, 2, 2), 51, dtype=torch.uint8), ["symmetries"], seed=0)[0, 0]
    tensor([[0.2000, 0.2000],
            [0.2000, 0.2000]])
    """
    image = pixels.float().div_(255)
    if stains is not None:
        image = normalize_stains(image, stains)
    if operations:
        image = augment(image, operations, torch.Generator(image.device).manual_seed(seed))
    return image.contiguous(memory_format=torch.channels_last)


def augment(image: Tensor, operations: Sequence[Operation], generator: torch.Generator) -> Tensor:
    """Apply operations one after the other, with other random numbers for each image.

    Args:
        image: (B, 3, H, W) float in [0, 1].
        operations: Names in `OPERATIONS`.
        generator: Source of all random numbers, on the image's device.

    Returns:
        (B, 3, H, W) float in [0, 1].
    """
    for operation in operations:
        image = OPERATIONS[operation](image, generator)
    return image


def rotate_zoom_shift(image: Tensor, generator: torch.Generator) -> Tensor:
    """Apply the 2019 recipe: a small rotation, zoom and shift, and flips; the edge is repeated beyond itself."""
    return warp(image, original_transforms(len(image), generator), "border")


def rotate(image: Tensor, generator: torch.Generator) -> Tensor:
    """Rotate each image by any angle about its centre; the corners show its mirror image, which looks like tissue."""
    angle = torch.rand(len(image), generator=generator, device=image.device) * (2 * math.pi)
    return warp(image, torch.cat([_rotations(angle), angle.new_zeros(len(image), 2, 1)], dim=2), "reflection")


def original_transforms(count: int, generator: torch.Generator) -> Tensor:
    """Return random affine transforms of the 2019 recipe.

    The order is that of Keras' `ImageDataGenerator`: output coordinates are flipped, zoomed (each axis on its own),
    shifted and rotated about the centre to find the input coordinates.

    Returns:
        (count, 2, 3) float: output to input, in units of half a side, as `torch.nn.functional.affine_grid` takes them.
    """
    uniform = torch.rand(count, 7, generator=generator, device=generator.device) * 2 - 1
    rotation = _rotations(torch.deg2rad(uniform[:, 0] * ROTATION))
    flip = torch.where(uniform[:, 3:5] < 0, -1.0, 1.0)
    zoom = (1 + uniform[:, 1:3] * ZOOM) * flip
    shift = uniform[:, 5:7] * (2 * SHIFT)
    return torch.cat([rotation * zoom[:, None, :], rotation @ shift[:, :, None]], dim=2)


def _rotations(angle: Tensor) -> Tensor:
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2)


def warp(image: Tensor, transform: Tensor, beyond: Literal["border", "reflection"] = "border") -> Tensor:
    """Resample each image under its own affine transform, bilinearly.

    Args:
        image: (B, 3, H, W) float.
        transform: (B, 2, 3), output to input coordinates in units of half a side.
        beyond: What is shown beyond the edge: the edge repeated, or the image mirrored at it.

    Returns:
        (B, 3, H, W) float.

    >>> mirrored = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    >>> warp(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), mirrored)
    tensor([[[[2., 1.],
              [4., 3.]]]])
    """
    grid = F.affine_grid(transform.to(image.dtype), list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode=beyond, align_corners=False)


def turn_and_flip(image: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by one of the eight symmetries of the square, without interpolation.

    Returns:
        (B, 3, H, W), every pixel one of the input's.
    """
    choice = torch.rand(3, len(image), 1, 1, 1, generator=generator, device=image.device) < 0.5
    image = torch.where(choice[0], image.transpose(2, 3), image)
    image = torch.where(choice[1], image.flip(2), image)
    return torch.where(choice[2], image.flip(3), image)


def symmetries(image: Tensor) -> list[Tensor]:
    """Return the eight symmetric versions of a batch (B, 3, H, W), each with one symmetry for all images.

    >>> [image.flatten().tolist() for image in symmetries(torch.arange(4).view(1, 1, 2, 2))][:2]
    [[0, 1, 2, 3], [2, 3, 0, 1]]
    """
    square = [image, image.flip(2), image.flip(3), image.flip((2, 3))]
    return square + [turned.transpose(2, 3) for turned in square]


OPERATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "original": rotate_zoom_shift,
    "symmetries": turn_and_flip,
    "rotation": rotate,
    "stain_jitter": jitter_stains,
}
"""Name of an operation -> its function."""
