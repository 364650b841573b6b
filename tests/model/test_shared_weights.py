# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="union-attr,arg-type,operator"
# (children of the network are named by Keras layers, which the type checker cannot know)
"""One set of weights: the Keras model and the fused network stay on the same memory after moves, loads and copies."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from cancernet.model.fused.network import TorchNetwork
from cancernet.model.network import CancerNet
from tests.model.agreement import cancernet, images, shaken, without_dropout


def test_parameters_are_those_of_keras():
    model = CancerNet.build(width=16, height=16)
    network = TorchNetwork(model)
    values = {id(weight.value) for weight in model.trainable_weights}
    assert {id(p) for p in network.parameters()} == values
    assert network.keras_model is model
    assert model not in list(network.modules())


def check_linked(network: TorchNetwork) -> None:
    """Each tensor of the network must be the memory that the Keras model reads, in both directions."""
    weights = network.keras_model.weights
    assert {w.value.data_ptr() for w in weights} == {v.data_ptr() for v in network.state_dict().values()}
    network.block1_norm1.running_var.fill_(7.0)
    with torch.no_grad():
        network.classifier.bias.fill_(5.0)
    layer = network.keras_model.get_layer
    assert np.all(np.asarray(layer("block1_norm1").moving_variance) == 7.0)
    assert np.all(np.asarray(layer("classifier").bias) == 5.0)


@pytest.mark.parametrize("move", [lambda n: n.double(), lambda n: n.half(), lambda n: n.to(torch.float64).float()])
def test_keras_model_follows_a_move(move):
    network = shaken()
    model = network.keras_model  # kept from before: no access through the property afterwards
    before = [np.asarray(w) for w in model.weights]
    assert move(network) is network
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_allclose(np.asarray(weight), value, atol=1e-3)
    check_linked(network)


def test_keras_model_follows_a_move_inside_another_module():
    outer = nn.Sequential(shaken())
    outer.double()
    check_linked(outer[0])


@pytest.mark.parametrize("assign", [False, True])
def test_keras_model_follows_loading(assign):
    network, source = cancernet(16), shaken()
    network.load_state_dict(copy.deepcopy(source.state_dict()), assign=assign)
    check_linked(network)


def test_weights_set_in_keras_are_seen_by_torch():
    network, source = cancernet(16).eval(), shaken().eval()
    network.keras_model.set_weights(source.keras_model.get_weights())
    assert torch.equal(network(images()), source(images()))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
def test_copies_stand_alone_and_draw_no_random_number(duplicate):
    network = shaken().eval()
    random_state = (torch.get_rng_state(), __import__("random").getstate())
    twin = duplicate(network)
    assert torch.equal(torch.get_rng_state(), random_state[0])
    assert __import__("random").getstate() == random_state[1]
    assert torch.equal(twin(images()), network(images()))
    check_linked(twin)
    assert not np.any(np.asarray(network.keras_model.get_layer("classifier").bias) == 5.0)
    assert not twin.training


def test_synchronised_batch_norm_replaces_all_and_keeps_statistics_and_checkpoint():
    network = without_dropout(shaken()).train()
    plain = copy.deepcopy(network)
    module = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(network))[0]
    assert sum(isinstance(child, nn.SyncBatchNorm) for child in module.modules()) == 7
    assert list(module.state_dict()) == list(plain.state_dict())
    for batch in (1, 6):
        assert torch.equal(module(images(batch)), plain(images(batch)))
    for name, value in module.named_buffers():
        assert torch.equal(value, plain.get_buffer(name)), name
    module.load_state_dict(plain.state_dict())
    check_linked(module)
    check_linked(copy.deepcopy(module))
