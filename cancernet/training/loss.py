"""The training loss: cross-entropy with class weights, label smoothing and mixup."""

from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ClassWeights = Literal["none", "balanced"] | tuple[float, float]


def cross_entropy(logit: Tensor, label: Tensor) -> Tensor:
    """Return the mean cross-entropy of a batch: with two units under a softmax, that of z1 - z0 under a sigmoid.

    Args:
        logit: (B,) float, of IDC.
        label: (B,) int64, 0 or 1.

    Returns:
        A scalar.
    """
    return F.binary_cross_entropy_with_logits(logit, label.to(logit.dtype))


class TrainingLoss:
    """The training loss. Evaluation takes `cross_entropy`, whichever options are set here.

    Args:
        class_weights: Factor on the loss of benign and of IDC patches; `balanced` is set by `set_class_weights`.
        label_smoothing: Share of the label, 0 to 1, spread evenly over both classes.
        mixup: Pairs of patches are mixed in shares from Beta(mixup, mixup); 0 mixes none (Zhang et al. 2018).
    """

    def __init__(self, class_weights: ClassWeights, label_smoothing: float, mixup: float) -> None:
        self.class_weights = class_weights
        self.label_smoothing = label_smoothing
        self.mixup = mixup
        # Not a buffer: weight averaging would average it, checkpoints would carry it.
        self._factors = torch.ones(2)

    def set_class_weights(self, weights: str | tuple[float, float], device: torch.device) -> None:
        """Fix the factors of a run.

        Args:
            weights: Two numbers, benign first; `none` for 1 each.
            device: Where the logits will be.
        """
        self._factors = torch.tensor((1.0, 1.0) if isinstance(weights, str) else weights, device=device)

    def mix(self, batch: dict[str, Any]) -> tuple[Tensor, float]:
        """Mix each image of a training batch with another one of it.

        Args:
            batch: Its `image`, (B, 3, H, W) float, and with mixup its `seed`, which determines the share.

        Returns:
            The images, each with the one that stands in its place from the end; and the share of the former, above 0.5
            (1 where nothing is mixed).
        """
        image = batch["image"]
        if self.mixup <= 0:
            return image, 1.0
        share = float(np.random.default_rng(batch["seed"]).beta(self.mixup, self.mixup))
        share = max(share, 1 - share)
        # Each epoch orders the patches differently: the reverse of a batch is as random as any pairing.
        return share * image + (1 - share) * image.flip(0), share

    def __call__(self, logit: Tensor, label: Tensor, share: float = 1.0) -> Tensor:
        """Return the loss of a batch.

        Each patch counts with its class weight, and the sum is divided by the number of patches, as Keras does it
        (torch's own weighted cross-entropy divides by the sum of the weights).

        Args:
            logit: (B,) float, of IDC.
            label: (B,) int64, 0 or 1, before anything was mixed.
            share: As `mix` returned it.

        Returns:
            A scalar.
        """
        loss = self._weighted(logit, label)
        return loss if share == 1 else share * loss + (1 - share) * self._weighted(logit, label.flip(0))

    def _weighted(self, logit: Tensor, label: Tensor) -> Tensor:
        target = label.to(logit.dtype) * (1 - self.label_smoothing) + self.label_smoothing / 2
        factor = self._factors.to(logit.dtype)[label]
        return F.binary_cross_entropy_with_logits(logit, target, factor, reduction="sum") / len(label)
