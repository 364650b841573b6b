# mypy: allow-untyped-defs, disable-error-code="union-attr"
"""Layers without a fused form, which run through Keras."""

import copy
import pickle
import warnings

import keras
import numpy as np
import pytest
import torch

from cancernet.model.fused.keras_call import KerasCall
from cancernet.model.fused.layers import BUILDERS
from cancernet.model.fused.network import TorchNetwork
from tests.model.agreement import compare_training, images, shake, to_keras
from tests.model.networks import Gain, build

layers = keras.layers
pytestmark = pytest.mark.filterwarnings("ignore:Runs through Keras")


def mixed(rate: float = 0.0) -> TorchNetwork:
    network = TorchNetwork(build(16, 16, 3, 2, rate=rate))
    shake(network.keras_model)
    return network


def slow_names(network: TorchNetwork) -> list[str]:
    return [type(call.operation).__name__ for call in network.keras_calls.values()]


def test_slow_layers_are_named_once_with_the_reason():
    with pytest.warns(UserWarning, match="through Keras") as caught:
        network = mixed()
    (message,) = [str(warning.message) for warning in caught]
    assert "(LayerNormalization): has no fused form" in message
    assert "activation 'wave'; supported" in message
    assert message.endswith("and 7 more")
    expected = "Conv2D LayerNormalization SpatialDropout2D Multiply Flip Add Split GetItem GetItem Dense Gain Add"
    assert sorted(slow_names(network)) == sorted(expected.split())


def test_probabilities_equal_keras_in_evaluation():
    network = mixed(rate=0.5).eval()
    expected = network.keras_model(to_keras(images()), training=False)
    torch.testing.assert_close(network(images()).softmax(1), expected, rtol=0, atol=1e-6)


def test_a_step_of_training_equals_keras():
    compare_training(mixed().train(), images(16), tolerance=1e-3)


def test_training_is_passed_on():
    network = mixed(rate=0.5)
    assert not torch.equal(network.train()(images()), network(images()))
    assert torch.equal(network.eval()(images()), network(images()))


def test_training_reaches_layers_inside_layers_that_do_not_take_it():
    class Outer(layers.Layer):
        def __init__(self):
            super().__init__()
            self.drop = layers.Dropout(0.5)

        def call(self, x):
            return self.drop(x)

    network = TorchNetwork(keras.Sequential([keras.Input((8, 8, 3)), Outer(), layers.Flatten()]))
    x = images(2, 8)
    assert torch.equal(network.eval()(x), to_keras(x).flatten(1))
    assert (network.train()(x) == 0).float().mean() > 0.3


def test_state_holds_each_value_once_and_no_seed():
    network = mixed(rate=0.5)
    state = network.state_dict()
    assert sum(value.numel() for value in state.values()) == network.keras_model.count_params()
    assert not [key for key in state if "seed" in key]
    assert {"kernel", "bias", "gain", "calls"} == {
        name for call in network.keras_calls.values() if isinstance(call.operation, Gain) for name in call.state_dict()
    }
    buffers = {key.rpartition(".")[2] for key, _ in network.named_buffers()}
    assert buffers == {"calls", "running_mean", "running_var"}


def test_frozen_layers_are_buffers_and_keep_their_keys():
    model, frozen = build(16, 16, 3, 2), build(16, 16, 3, 2)
    next(layer for layer in frozen.layers if isinstance(layer, Gain)).trainable = False
    network, other = TorchNetwork(model), TorchNetwork(frozen)
    assert [len(value) for value in (network.state_dict(), other.state_dict())] == [len(network.state_dict())] * 2
    assert len(list(network.parameters())) - len(list(other.parameters())) == 3


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_stand_alone_and_can_be_trained(duplicate):
    network = mixed().train()
    twin = duplicate(network)
    assert list(twin.state_dict()) == list(network.state_dict())
    twin(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in twin.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    before = network.eval()(images())
    assert not torch.allclose(twin.eval()(images()), before)
    expected = twin.keras_model(to_keras(images()), training=False)
    torch.testing.assert_close(twin(images()).softmax(1), expected, rtol=0, atol=1e-6)


def test_gradients_arrive_after_assigned_weights_and_a_move():
    network = mixed().train()
    network.load_state_dict(copy.deepcopy(network.state_dict()), assign=True)
    network.double().float()
    network(images()).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_what_surrounds_slow_layers_still_compiles():
    torch._dynamo.reset()
    network = mixed().eval()
    expected = network(images())
    compiled = torch.compile(network, backend="aot_eager")
    torch.testing.assert_close(compiled(images()), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "layer",
    [
        layers.GaussianNoise(0.0),
        layers.Activation("log_softmax"),
        layers.BatchNormalization(axis=1),
        layers.Rescaling([1.0, 2.0, 3.0], offset=[0.1, 0.2, 0.3]),
        layers.AveragePooling2D(3, strides=2, padding="same"),
        layers.Softmax(axis=[1, 2]),
        layers.Permute((2, 3, 1)),
        layers.Reshape((64, 3)),
        layers.ReLU(threshold=0.4),
    ],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("training", [False, True])
def test_what_a_builder_refuses_equals_keras(layer, training):
    layer = type(layer).from_config({**layer.get_config(), "name": None})
    model = keras.Sequential([keras.Input((8, 8, 3)), layer, layers.Flatten(), layers.Dense(2)])
    network = TorchNetwork(model).train(training)
    assert slow_names(network) == [type(layer).__name__]
    x = images(4, 8)
    before = copy.deepcopy(network.state_dict())
    output, after = network(x), copy.deepcopy(network.state_dict())
    network.load_state_dict(before)
    torch.testing.assert_close(output, model(to_keras(x), training=training), rtol=1e-5, atol=1e-6)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(after[name], value)


def test_a_function_that_bears_the_name_of_a_known_one_is_not_taken_for_it():
    def relu(x):
        return -x

    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Activation(relu), layers.Flatten()])
    assert torch.equal(TorchNetwork(model)(images(2, 8)), -to_keras(images(2, 8)).flatten(1))


def test_channels_first_models_run_too():
    keras.config.set_image_data_format("channels_first")
    try:
        tail = [layers.UnitNormalization(axis=1), layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)]
        model = keras.Sequential([keras.Input((3, 8, 8)), *tail])
    finally:
        keras.config.set_image_data_format("channels_last")
    network = TorchNetwork(model)
    torch.testing.assert_close(network(images(2, 8)), model(images(2, 8)), rtol=1e-5, atol=1e-5)


def test_a_model_without_a_graph_runs_inside_another():
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), Subclassed(), layers.Activation("softmax")])
    network = TorchNetwork(model)
    torch.testing.assert_close(network(images(2, 8)).softmax(1), model(to_keras(images(2, 8))))
    assert len(list(network.parameters())) == 2


def test_a_registered_layer_runs_fused_and_without_a_word(monkeypatch):
    monkeypatch.setitem(BUILDERS, layers.GaussianNoise, lambda layer, context: torch.nn.Identity())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = TorchNetwork(
            keras.Sequential([keras.Input((8, 8, 3)), layers.GaussianNoise(0.1), layers.Flatten(), layers.Dense(2)])
        )
    assert not any(isinstance(module, KerasCall) for module in network.modules())
    assert np.prod(network(images(2, 8)).shape) == 4
