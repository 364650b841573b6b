"""Batch-norm statistics of a network: their momentum, and their recalibration after training (precise batch norm).

Training moves the statistics under dropout, which widens what a batch norm behind it sees; in use there is none, and
the statistics are too wide (X. Li et al., "Understanding the disharmony between dropout and batch normalization by
variance shift", CVPR 2019). They also lag behind the weights, more so behind averaged ones. Measuring them when the
weights stand still cures both (Y. Wu and J. Johnson, "Rethinking 'Batch' in BatchNorm", 2021).
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cancernet.model.fused.keras_call import KerasCall


def set_momentum(network: nn.Module, kept: float) -> None:
    """Set how much of the moving statistics each batch leaves in place.

    Args:
        network: Its batch norms run as torch layers or through Keras.
        kept: 0 to 1, Keras' sense of momentum.
    """
    for layer in _layers(network):
        if isinstance(layer, KerasCall):
            layer.operation.momentum = kept
        else:
            layer.momentum = 1 - kept


def measure_statistics(network: nn.Module, images: Iterable[Tensor]) -> None:
    """Set the statistics of each batch norm to their means over batches, with the weights as they are and no dropout.

    Args:
        network: The network, or what holds it; left in evaluation, and with a momentum of no meaning: it is not to be
            trained on.
        images: Batches (B, 3, H, W) as it takes them, each a mixture of all there is.
    """
    network.eval()
    for layer in _layers(network):
        layer.train()
    seen = 0
    with torch.no_grad():
        for image in images:
            seen += len(image)
            # A batch counts with its patches: the first one leaves nothing of what was there.
            set_momentum(network, 1 - len(image) / seen)
            network(image)
    network.eval()


def _layers(network: nn.Module) -> Iterator[Any]:
    for layer in network.modules():
        through_keras = isinstance(layer, KerasCall) and hasattr(layer.operation, "momentum")
        if through_keras or isinstance(layer, _BatchNorm):
            yield layer
