# mypy: allow-untyped-defs, allow-incomplete-defs, disable-error-code="union-attr,arg-type,operator"
# (children of the network are named by Keras layers, which the type checker cannot know)

import copy
import itertools

import keras
import numpy as np
import pytest
import torch
from torch import nn

from cancernet.errors import InputError
from cancernet.model.fused.network import TorchNetwork
from cancernet.model.network import CancerNet
from tests.model.agreement import cancernet, images, shaken, to_keras, without_dropout


def without_probability(model: keras.Model) -> keras.Model:
    return keras.Model(model.inputs, model.layers[-1].input)


# The nine traps of Keras as a torch module.


def test_trap_1_train_and_eval_switch_dropout_and_batch_norm():
    network = shaken().train()
    before = network.block1_norm1.running_mean.clone()
    assert not torch.equal(network(images()), network(images()))
    assert not torch.equal(network.block1_norm1.running_mean, before)
    network.eval()
    before = network.block1_norm1.running_mean.clone()
    assert torch.equal(network(images()), network(images()))
    assert torch.equal(network.block1_norm1.running_mean, before)


def test_trap_2_state_dict_is_canonical_and_loads_in_the_same_process():
    first, second = shaken(), cancernet(16)
    state = first.state_dict()
    assert list(state) == list(second.state_dict())
    assert len({value.data_ptr() for value in state.values()}) == len(state) == 50
    assert sum(value.numel() for value in state.values()) == first.keras_model.count_params()
    assert not any(word in key for key in state for word in ("seed", "tracked", "keras"))
    assert {"block1_conv1.depthwise_kernel", "head_norm.running_var", "classifier.bias"} <= set(state)
    second.load_state_dict({key: value.clone() for key, value in state.items()})  # plain, without torch's metadata
    assert torch.equal(first.eval()(images()), second.eval()(images()))
    for one, other in zip(first.keras_model.weights, second.keras_model.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_trap_3_statistics_are_buffers():
    network = cancernet()
    assert sum(b.numel() for b in network.buffers()) == 1_600
    assert len(list(network.buffers())) == 14
    assert sum(p.numel() for p in network.parameters()) == 1_233_533
    assert all(p.requires_grad for p in network.parameters())


def test_trap_4_autocast_computes_in_bf16():
    network = shaken()
    seen: dict[str, torch.dtype] = {}
    for name, module in network.named_children():
        module.register_forward_hook(lambda m, i, output, name=name: seen.__setitem__(name, output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        network.train()(images()).float().sum().backward()
    assert set(seen.values()) == {torch.bfloat16}
    assert len(seen) == len(list(network.children()))
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in network.parameters())


def test_trap_5_device_is_not_that_of_keras():
    with keras.device("meta"):  # stands for cuda, which Keras would take wherever there is one
        network = cancernet(16).eval()
        assert {value.device.type for value in network.state_dict().values()} == {"cpu"}
        assert network(images()).device.type == "cpu"
    assert network.to("meta")(images().to("meta")).device.type == "meta"


def test_trap_6_whole_graph_compiles_forward_and_backward():
    torch._dynamo.reset()
    network = without_dropout(shaken()).train()
    plain = copy.deepcopy(network)
    # That there is one graph is quick to see; tests/training/test_fast_paths.py has the generated code.
    for training in (True, False):
        network.train(training)
        plain.train(training)
        compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
        expected, output = plain(images()), compiled(images())
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)
        if training:
            output.square().mean().backward()
            expected.square().mean().backward()
    for (name, parameter), other in zip(network.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-3, atol=1e-4, msg=name)
    for statistic, other in zip(network.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(statistic, other, rtol=1e-5, atol=1e-6)


def test_trap_7_dropout_has_no_seed_and_follows_torch():
    network = shaken().train()
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(network(images()))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    keras.utils.set_random_seed(3)
    first = cancernet()
    keras.utils.set_random_seed(3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), cancernet().parameters(), strict=True))


def test_trap_8_moving_statistics_are_biased_as_in_keras():
    network = without_dropout(shaken()).train()
    other = shaken()
    for step in range(3):
        network(images(seed=step))
        without_dropout(other).keras_model(to_keras(images(seed=step)), training=True)
    for name, value in network.named_buffers():
        torch.testing.assert_close(value, other.get_buffer(name), rtol=0, atol=1e-6, msg=name)


def test_trap_9_layers_are_named_modules():
    network = cancernet()
    names = [layer.name for layer in network.keras_model.layers]
    assert [name for name, _ in network.named_modules() if name] == names[:-1]  # all but the softmax
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        network.eval()(images(1, 50))
    assert counter.get_flop_counts()["TorchNetwork.block1_conv1"]
    assert counter.get_total_flops() == 2 * 12_180_620  # multiplications and additions, counted by hand


# Equality with Keras' own computation.


def test_output_of_fresh_weights_equals_keras_bit_for_bit():
    network = cancernet().eval()
    model = without_probability(network.keras_model)
    assert torch.equal(network(images(8, 50)), model(to_keras(images(8, 50)), training=False))


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_output_of_any_weights_equals_keras(classes):
    network = shaken(classes=classes).eval()
    assert network.output_activation == ("sigmoid" if classes == 1 else "softmax")
    logits = network(images())
    torch.testing.assert_close(
        logits, without_probability(network.keras_model)(to_keras(images())), rtol=1e-5, atol=1e-5
    )
    probability = logits.sigmoid() if classes == 1 else logits.softmax(1)
    torch.testing.assert_close(probability, network.keras_model(to_keras(images())), rtol=0, atol=1e-6)


@pytest.fixture
def single_precision():
    """Nothing to do: Keras' default."""


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [
        ("double_precision", 1e-5),  # Keras on torch rounds matrix products and means to single precision even here
        # torch's channels-last batch norm on the CPU adds up in plain single precision, less exactly than Keras' mean;
        # a small deep batch norm and its backward pass enlarge that.
        ("single_precision", 1e-3),
    ],
)
def test_training_output_and_gradients_equal_keras(request, precision, tolerance):
    request.getfixturevalue(precision)
    network = without_dropout(shaken()).train()
    model = without_probability(network.keras_model)
    batch = images(16).to(network.classifier.bias.dtype)
    results = []
    for call in (lambda: network(batch), lambda: model(to_keras(batch), training=True)):
        statistics = copy.deepcopy(network.state_dict())
        network.zero_grad()
        output = call()
        output.square().mean().backward()
        results.append({name: p.grad.clone() for name, p in network.named_parameters()})
        results[-1] |= {"output": output.detach()} | {name: value.clone() for name, value in network.named_buffers()}
        network.load_state_dict(statistics)
    for name, found in results[0].items():
        expected = results[1][name]
        scale = max(1.0, float(expected.abs().max()))
        assert float((found - expected).abs().max()) / scale < tolerance, name


def test_memory_format_of_the_input_does_not_matter():
    network = shaken().eval()
    assert torch.equal(network(images()), network(images().contiguous(memory_format=torch.channels_last)))


def test_channels_first_model_runs_too():
    network = shaken()
    keras.config.set_image_data_format("channels_first")
    try:
        first = CancerNet.build(width=16, height=16)
    finally:
        keras.config.set_image_data_format("channels_last")
    first.set_weights(network.keras_model.get_weights())
    torch.testing.assert_close(TorchNetwork(first).eval()(images()), network.eval()(images()))


def test_batch_of_one_trains_as_in_keras():
    network, reference = without_dropout(shaken()).train(), without_dropout(shaken())
    output = network(images(1))
    output.sum().backward()
    expected = without_probability(reference.keras_model)(to_keras(images(1)), training=True)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)
    for name, value in network.named_buffers():
        torch.testing.assert_close(value, reference.get_buffer(name), rtol=0, atol=1e-6, msg=name)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_image_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"\(3, 16, 16\).*Received: \(6, 3, 20, 20\)"):
        cancernet(16)(images(size=20))


def test_gradients_reach_every_parameter_of_the_default_network():
    network = cancernet().train()
    nn.functional.cross_entropy(network(images(4, 50)), torch.tensor([0, 1, 0, 1])).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in itertools.islice(network.parameters(), 2))
