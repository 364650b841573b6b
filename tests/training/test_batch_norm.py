import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cancernet.model.fused.keras_call import KerasCall
from cancernet.training.batch_norm import measure_statistics, set_momentum
from cancernet.training.task import ClassificationTask


def draw_batches(*sizes: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.rand(size, 3, 16, 16, generator=random) for size in sizes]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return ClassificationTask(image_size=16).network


def norms(network: nn.Module) -> list[nn.Module]:
    return [layer for layer in network.modules() if isinstance(layer, _BatchNorm)]


def test_statistics_are_those_of_what_each_layer_is_given_without_dropout(network):
    images = draw_batches(8)
    given: dict[nn.Module, torch.Tensor] = {}
    for layer in norms(network):
        layer.register_forward_pre_hook(lambda layer, inputs: given.setdefault(layer, inputs[0].detach()))
    measure_statistics(network, images)
    assert len(given) == 7
    for layer, value in given.items():
        axes = [axis for axis in range(value.dim()) if axis != 1]
        torch.testing.assert_close(layer.running_mean, value.mean(axes), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(layer.running_var, value.var(axes, correction=0), atol=1e-6, rtol=1e-4)
    # Measured by what it normalises with, the network now answers as it does in training with dropout left out.
    network.eval()
    plain = network(images[0])
    for layer in norms(network):
        layer.train()
    torch.testing.assert_close(network(images[0]), plain, atol=1e-3, rtol=1e-3)


def test_patches_of_all_batches_count_alike(network):
    first, second = draw_batches(6, 2)
    layer = norms(network)[0]
    given = []
    layer.register_forward_pre_hook(lambda layer, inputs: given.append(inputs[0].detach()))
    measure_statistics(network, [first, second])
    torch.testing.assert_close(layer.running_mean, torch.cat(given).mean((0, 2, 3)), atol=1e-6, rtol=1e-5)


def test_what_was_there_before_makes_no_difference_and_no_weight_moves(network):
    weights = {name: value.clone() for name, value in network.named_parameters()}
    images = draw_batches(8, 8)
    measure_statistics(network, images)
    found = [layer.running_var.clone() for layer in norms(network)]
    for layer in norms(network):
        layer.running_var.fill_(7.0)
        layer.running_mean.fill_(-3.0)
    measure_statistics(network, images)
    for layer, before in zip(norms(network), found, strict=True):
        torch.testing.assert_close(layer.running_var, before)
    assert not network.training
    assert all(torch.equal(value, weights[name]) for name, value in network.named_parameters())


@pytest.mark.filterwarnings("ignore:Runs through Keras")
def test_layers_that_run_through_keras_are_measured_too():
    task = ClassificationTask(network="tests.model.networks.normalise_rows", image_size=16)
    layers = [
        layer
        for layer in task.network.modules()
        if isinstance(layer, KerasCall) and hasattr(layer.operation, "momentum")
    ]
    assert layers
    set_momentum(task.network, 0.9)
    assert {layer.operation.momentum for layer in layers} == {0.9}
    before = [torch.clone(layer.operation.moving_variance.value) for layer in layers]
    measure_statistics(task.network, draw_batches(8))
    after = [layer.operation.moving_variance.value for layer in layers]
    assert not any(torch.allclose(a, b) for a, b in zip(after, before, strict=True))
