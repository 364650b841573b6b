# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="union-attr,arg-type,operator"
# (children of the network are named by Keras layers, which the type checker cannot know)
"""Other networks than CancerNet: branches, nested models, activations, and what is refused."""

import copy

import keras
import pytest
import torch
from keras import layers
from torch import nn

from cancernet.errors import InputError
from cancernet.model.fused.layers import BUILDERS
from cancernet.model.fused.network import TorchNetwork
from cancernet.model.network import CancerNet
from tests.model.agreement import images, shake, to_keras


def branching(size: int = 17) -> keras.Model:
    """Branches, strides, asymmetric padding, a shared layer, a model inside, most kinds of layers."""
    image = keras.Input((size, size + 3, 3), name="image")
    x = layers.Rescaling(2.0, offset=-1.0, name="rescale")(image)
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, activation="silu", name="stem")(x)
    a = layers.DepthwiseConv2D(3, strides=2, padding="same", depth_multiplier=2, name="a_depthwise")(x)
    b = layers.SeparableConv2D(16, 4, strides=2, padding="same", activation="gelu", name="b_separable")(x)
    c = layers.MaxPooling2D(3, strides=2, padding="same", name="c_pool")(x)
    c = layers.Conv2D(16, 1, groups=4, name="c_conv")(c)
    shared = layers.BatchNormalization(scale=False, name="shared_norm")
    x = layers.Add(name="add")([shared(a), shared(b), c])
    x = layers.Concatenate(name="concatenate")([x, layers.LeakyReLU(0.1, name="leaky")(c)])
    x = layers.ReLU(max_value=6.0, name="relu6")(layers.ZeroPadding2D(((1, 0), (2, 1)), name="pad")(x))
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    x = layers.Multiply(name="gate")([x, layers.Activation("sigmoid", name="gate_sigmoid")(gate)])
    inner = keras.Sequential([keras.Input(x.shape[1:]), layers.AveragePooling2D(2, name="pool")], name="inner")
    x = layers.Flatten(name="flatten")(inner(x))
    x = layers.Dense(3, activation="softmax", name="predictions")(x)
    return keras.Model(image, x)


@pytest.mark.parametrize("training", [False, True])
def test_branches_strides_and_shared_layers_equal_keras(training):
    model = branching()
    shake(model)
    network = TorchNetwork(model).train(training)
    statistics = copy.deepcopy(network.state_dict())
    image = torch.rand(4, 3, 17, 20, generator=torch.Generator().manual_seed(0))
    output = network(image).softmax(1)
    after = copy.deepcopy(network.state_dict())
    network.load_state_dict(statistics)
    torch.testing.assert_close(output, model(to_keras(image), training=training), rtol=0, atol=1e-6)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(after[key], value, rtol=0, atol=1e-6, msg=key)
    assert (network.classes, network.image_shape, network.output_activation) == (3, (3, 17, 20), "softmax")


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "elu", "leaky_relu", "hard_silu", "mish", "linear"])
def test_activations_equal_keras(activation):
    image = keras.Input((4, 4, 3))
    model = keras.Model(image, layers.Dense(2)(layers.Flatten()(layers.Activation(activation)(image))))
    x = 4 * images(3, 4) - 2
    torch.testing.assert_close(TorchNetwork(model)(x), model(to_keras(x)), rtol=1e-5, atol=1e-5)


def test_frozen_batch_norm_stays_in_training():
    model = CancerNet.build(width=16, height=16)
    model.get_layer("block1_norm1").trainable = False
    network = TorchNetwork(model).train()
    network(images())
    assert not network.block1_norm1.training
    assert torch.equal(network.block1_norm1.running_mean, torch.zeros(32))
    assert not network.block1_norm1.weight.requires_grad


def ending(*tail: keras.layers.Layer, shape: tuple[int, ...] = (8, 8, 3)) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *tail])


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (lambda: ending(layers.Flatten(), layers.Dense(2, activation="relu", name="end")), "'end'.*linear, a softmax"),
        (lambda: ending(layers.Flatten(), layers.Lambda(lambda x: x, name="end")), "'end'.*linear, a softmax"),
        (lambda: ending(layers.Conv2D(2, 3)), "one image"),
        (lambda: ending(layers.Dense(2), shape=(5,)), "one image"),
        (lambda: keras.Sequential([layers.Flatten()]), "no graph"),
        (lambda: ending(layers.Flatten(name="forward")), "'forward'"),
    ],
)
def test_what_cannot_run_is_refused_by_name(model, words):
    with pytest.raises(InputError, match=words):
        TorchNetwork(model())


def test_builders_can_be_extended(monkeypatch):
    monkeypatch.setitem(BUILDERS, layers.GaussianNoise, lambda layer, context: nn.Identity())
    model = ending(layers.GaussianNoise(0.1, name="noise"), layers.Flatten())
    assert TorchNetwork(model)(images(2, 8)).shape == (2, 192)
