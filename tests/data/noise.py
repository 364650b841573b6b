"""Images of noise, and random generators."""

import torch


def draw_images(count: int = 6, side: int = 50) -> torch.Tensor:
    """Draw noise, (count, 3, side, side) float in [0, 1]."""
    return torch.rand(count, 3, side, side, generator=generator(1))


def generator(seed: int = 0) -> torch.Generator:
    """Seed a generator of torch's."""
    return torch.Generator().manual_seed(seed)
