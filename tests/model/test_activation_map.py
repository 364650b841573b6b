import keras
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cancernet.model.activation_map import class_activation
from cancernet.model.fused.network import TorchNetwork
from cancernet.model.registry import create_network


@pytest.fixture
def image():
    return torch.rand(3, 3, 50, 50, generator=torch.Generator().manual_seed(0))


def settle(network):
    """Statistics as after training, where a fresh network has 0 and 1."""
    torch.manual_seed(0)
    for module in network.modules():
        if hasattr(module, "running_var"):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.2, 0.6)
    return network.eval()


def log_odds(logits):
    return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits[:, 0]


def by_differences(network, layer, image, window, step=1e-6):
    """Slow reference: the change of the log-odds as some cells of a layer's output, in all channels, are scaled."""
    odds = []
    for factor in (1 + step, 1 - step):

        def scale(module, inputs, output, factor=factor):
            output = output.clone()
            output[(..., *window)] *= factor
            return output

        handle = network.get_submodule(layer).register_forward_hook(scale)
        with torch.no_grad():
            odds.append(log_odds(network(image)))
        handle.remove()
    return (odds[0] - odds[1]) / (2 * step)


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize(
    ("name", "layer"), [("cancernet", "block3_norm3"), ("compact", "block3_add2"), ("residual", "block3_add2")]
)
def test_cells_hold_what_scaling_them_changes(name, layer, classes, image):
    network = settle(create_network(name, {}, 50, classes)).double()
    image = image.double()
    found = class_activation(network, image)
    assert found.shape == (3, 12, 12)
    # The four cells of a maximum together: ReLU makes many of them equal, and the maximum of equals has no derivative.
    for row, column in [(0, 0), (4, 6), (10, 2)]:
        window = (slice(row, row + 2), slice(column, column + 2))
        expected = by_differences(network, layer, image, window)
        np.testing.assert_allclose(found[(..., *window)].sum(dim=(1, 2)), expected, rtol=1e-4, atol=1e-9)


def small(classes=2):
    layers = [
        keras.Input((16, 16, 3)),
        keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="convolution"),
        keras.layers.GlobalAveragePooling2D(name="average"),
        keras.layers.Dense(classes, activation="softmax", name="classifier"),
    ]
    with keras.device("cpu"):
        return TorchNetwork(keras.Sequential(layers)).eval()


def test_the_map_is_the_gradient_worked_out_by_hand():
    network, image = small(), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    kernel, weights = network.convolution.kernel.detach(), network.classifier.kernel.detach()
    features = F.relu(F.conv2d(image, kernel.permute(3, 2, 0, 1), network.convolution.bias.detach(), padding=1))
    # The head is linear: a cell's share of the average, times the difference of the two units' weights.
    expected = torch.einsum("bchw,c->bhw", features, weights[:, 1] - weights[:, 0]) / 16**2
    found = class_activation(network, image)
    np.testing.assert_allclose(found, expected, atol=1e-7)
    bias = network.classifier.bias.detach()
    np.testing.assert_allclose(found.sum(dim=(1, 2)) + bias[1] - bias[0], log_odds(network(image)).detach(), atol=1e-6)


def test_inference_mode_and_frozen_weights_change_nothing(image):
    network = settle(create_network("compact", {}, 50, 2))
    expected = class_activation(network, image)
    network.requires_grad_(False)
    with torch.inference_mode():
        found = class_activation(network, image * 1)
    np.testing.assert_array_equal(found, expected)
    assert not any(module._forward_hooks for module in network.modules())


def test_a_network_whose_feature_maps_are_small_is_shown_on_the_image():
    layers = [keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2, activation="softmax")]
    with keras.device("cpu"):
        network = TorchNetwork(keras.Sequential(layers)).eval()
    assert class_activation(network, torch.rand(2, 3, 8, 8)).shape == (2, 8, 8)
