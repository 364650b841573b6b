# mypy: allow-untyped-defs, disable-error-code="union-attr"
"""Shared by tests of networks: patches, random weights, and a training step compared with Keras' own."""

import copy

import keras
import numpy as np
import torch
from torch import nn

from cancernet.model.fused.network import TorchNetwork
from cancernet.model.registry import create_network

layers = keras.layers


def images(batch: int = 6, size: int = 16, seed: int = 0) -> torch.Tensor:
    """Return smooth random patches: to the batch norm of dense layers, all patches of pure noise look alike."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 3, 3, generator=generator)
    smooth = nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    return 0.8 * smooth + 0.2 * torch.rand(batch, 3, size, size, generator=generator)


def cancernet(size: int = 50, classes: int = 2) -> TorchNetwork:
    """Return a CancerNet with fresh random weights."""
    return create_network("cancernet", {}, size, classes)


def to_keras(image: torch.Tensor) -> torch.Tensor:
    return image.permute(0, 2, 3, 1).contiguous()


def shake(model: keras.Model, seed: int = 0) -> None:
    """Give every weight another value, so that a swapped pair cannot go unseen."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        limit = float(np.sqrt(6 / sum(weight.shape[-2:]))) / 3 if "kernel" in weight.path else 0.2
        low, high = (0.5, 1.5) if "variance" in weight.path or "gamma" in weight.path else (-limit, limit)
        weight.assign(generator.uniform(low, high, weight.shape).astype(np.float32))


def shaken(classes: int = 2) -> TorchNetwork:
    """Return a small CancerNet with a different value in every weight."""
    network = cancernet(16, classes)
    shake(network.keras_model)
    return network


def without_dropout(network: TorchNetwork) -> TorchNetwork:
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for layer in network.keras_model.layers:
        if isinstance(layer, layers.Dropout):
            layer.rate = 0.0
    return network


def compare_training(network: TorchNetwork, batch: torch.Tensor, tolerance: float) -> None:
    """Compare probabilities, gradients and moving statistics of a training step with Keras' own computation."""
    results = []
    for fused in (True, False):
        before = copy.deepcopy(network.state_dict())
        network.zero_grad()
        output = network(batch).softmax(1) if fused else network.keras_model(to_keras(batch), training=True)
        (-output[:, 0].log().mean()).backward()
        found = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
        found |= {"output": output.detach()} | {name: value.clone() for name, value in network.named_buffers()}
        results.append(found)
        network.load_state_dict(before)
    # A bias in front of a batch norm has no gradient but rounding: no gradient is compared more strictly than this.
    least = 1e-2 * max(float(value.abs().max()) for value in results[1].values())
    for name, expected in results[1].items():
        difference = float((results[0][name] - expected).abs().max())
        assert difference / max(least, float(expected.abs().max())) < tolerance, name
