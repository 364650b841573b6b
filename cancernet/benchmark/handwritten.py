"""The same network as anyone would write it in torch: what ours is held against."""

import torch
from torch import Tensor, nn


def _unit(inputs: int, filters: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
        nn.Conv2d(inputs, filters, 1),
        nn.ReLU(),
        nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01),
    ]


def build_handwritten(size: int = 50) -> nn.Sequential:
    """Build CancerNet in torch alone, channels-last: (B, 3, size, size) to logits (B, 2)."""
    layers: list[nn.Module] = []
    channels = 3
    for filters, convolutions in ((32, 1), (64, 2), (128, 3)):
        for _ in range(convolutions):
            layers += _unit(channels, filters)
            channels = filters
        layers += [nn.MaxPool2d(2), nn.Dropout(0.25)]
    side = size // 8
    layers += [nn.Flatten(), nn.Linear(128 * side * side, 256), nn.ReLU(), nn.BatchNorm1d(256, 1e-3, 0.01)]
    layers += [nn.Dropout(0.5), nn.Linear(256, 2)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def difference(logits: Tensor) -> Tensor:
    """Return z1 - z0 in single precision, the logit of IDC."""
    logits = logits.float()
    return logits[:, 1] - logits[:, 0]
