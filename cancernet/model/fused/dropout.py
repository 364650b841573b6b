"""Dropout that draws eight values from one random number on the CPU, where drawing them is what dropout costs."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEVELS = 256
"""Values of a random byte: a rate that is a multiple of 1/256, as 0.25 and 0.5 are, is met exactly."""


class Dropout(nn.Dropout):
    """Dropout as torch's own, with torch's own generator, but other draws on the CPU.

    torch draws 53 random bits in one thread for each value that it keeps or drops; that is a quarter of a training step
    of CancerNet in bfloat16. A byte is enough where the rate is a multiple of 1/256; everything else is left to torch.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Set values to zero with probability `p` in training and scale up the rest."""
        dropped = self.p * LEVELS
        if not self.training or input.device.type != "cpu" or dropped not in range(1, LEVELS):
            return F.dropout(input, self.p, self.training)
        keep = _random_bytes(input) >= int(dropped)
        return input * keep.to(input.dtype).mul_(1 / (1 - self.p))


def _random_bytes(like: Tensor) -> Tensor:
    """Draw a uniform byte for each value of a tensor, in its memory order where that is channels-last."""
    image = like.dim() == 4
    shape = like.permute(0, 2, 3, 1).shape if image else like.shape
    words = torch.randint(-(2**63), 2**63 - 1, (like.numel() // 8 + 1,))
    drawn = words.view(torch.uint8)[: like.numel()].view(shape)
    return drawn.permute(0, 3, 1, 2) if image else drawn
