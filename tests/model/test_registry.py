# mypy: allow-untyped-defs
"""Networks by name: the small ones, those of keras.applications, and users' own."""

import warnings

import keras
import numpy as np
import pytest
import torch

from cancernet.errors import InputError
from cancernet.model.fused.layers import BYTE_VALUES
from cancernet.model.network import COMPACT_DROPOUT, RESIDUAL_DROPOUT, CancerNet, build_compact, build_residual
from cancernet.model.registry import create_network
from tests.model.agreement import compare_training, images, shake, to_keras, without_dropout

MOBILENET = "keras.applications.MobileNetV2"
SMALL = pytest.mark.parametrize("name", ["compact", "residual"])


@pytest.fixture(scope="module")
def mobilenet():
    """A narrow MobileNetV2 with random weights and statistics."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # each of its layers runs fused
        network = create_network(MOBILENET, {"alpha": 0.35}, 48, 2)
    shake(network.keras_model)
    return network


@pytest.mark.parametrize(
    ("build", "classes", "total", "largest"),
    [
        (build_compact, 2, 278_589, 256 * 256),
        (build_compact, 1, 278_332, 256 * 256),
        (build_residual, 2, 657_002, 9 * 192 * 192),
        (build_residual, 1, 656_809, 9 * 192 * 192),
    ],
)
def test_small_networks_are_smaller_than_cancernet_and_have_no_large_matrix(build, classes, total, largest):
    model = build(classes=classes)
    assert model.count_params() == total < CancerNet.build(classes=classes).count_params()
    assert max(int(np.prod(weight.shape)) for weight in model.weights) == largest
    assert model.count_params() == build(48, 48, classes=classes).count_params()


@pytest.mark.parametrize(
    ("name", "weight"), [("compact", "block5_conv3.pointwise_kernel"), ("residual", "block4_conv2.kernel")]
)
def test_small_networks_run_fused_with_fixed_names(name, weight):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = (create_network(name, {}, 50, 2) for _ in range(2))
    assert list(first.state_dict()) == list(second.state_dict())
    assert weight in first.state_dict()
    for rate in (COMPACT_DROPOUT, RESIDUAL_DROPOUT):
        assert (rate * BYTE_VALUES).is_integer(), "other rates are slow on the CPU"


@SMALL
@pytest.mark.parametrize("size", [8, 9, 48, 50])
def test_small_networks_take_all_sizes(name, size):
    network = create_network(name, {}, size, 1).eval()
    assert network(images(2, size)).shape == (2, 1)
    assert network.output_activation == "sigmoid"


@SMALL
def test_small_networks_have_the_same_weights_channels_first(name):
    keras.config.set_image_data_format("channels_first")
    try:
        first = create_network(name, {}, 16, 2)
    finally:
        keras.config.set_image_data_format("channels_last")
    last = create_network(name, {}, 16, 2)
    shake(last.keras_model)
    first.load_state_dict(last.state_dict())
    torch.testing.assert_close(first.eval()(images()), last.eval()(images()))
    expected = first.keras_model(images(), training=False)
    torch.testing.assert_close(first(images()).softmax(1), expected, rtol=0, atol=1e-6)


@SMALL
def test_small_networks_refuse_what_cancernet_refuses(name):
    with pytest.raises(InputError, match="width .*at least 8. Received: 7"):
        create_network(name, {}, 7, 2)


def test_probabilities_equal_keras_in_evaluation(mobilenet):
    compact, residual = (create_network(name, {}, 50, 2) for name in ("compact", "residual"))
    for network in (compact, residual):
        shake(network.keras_model)
    for network, size in ((compact, 50), (residual, 50), (mobilenet, 48)):
        x = images(6, size)
        expected = network.keras_model(to_keras(x), training=False)
        assert expected.std() > 1e-3, "all patches alike would prove nothing"
        torch.testing.assert_close(network.eval()(x).softmax(1), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments", "size"), [("compact", {}, 16), ("residual", {}, 16), (MOBILENET, {"alpha": 0.35}, 64)]
)
def test_a_step_of_training_equals_keras(name, arguments, size, double_precision):
    network = without_dropout(create_network(name, arguments, size, 2)).train()
    shake(network.keras_model)
    compare_training(network, images(8, size).double(), tolerance=1e-4)


def test_names_that_keras_makes_up_are_the_same_each_time():
    keys = []
    for _ in range(2):
        with pytest.warns(UserWarning, match="through Keras"):
            keys.append(list(create_network("tests.model.networks.build", {"filters": 6}, 16, 2).state_dict()))
    assert keys[0] == keys[1]
    assert {"conv2d.kernel", "dense.kernel"} <= set(keys[0])


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("nosuch", {}, "'nosuch' is no network; use one of cancernet, compact"),
        ("tests.nosuch.build", {}, "'tests.nosuch.build' cannot be imported"),
        ("tests.model.networks.nosuch", {}, "cannot be imported"),
        ("keras.applications.NoSuchNet", {}, "cannot be imported"),
        ("keras.applications", {}, "'keras.applications' is no network"),
        (MOBILENET, {"nosuch": 1}, "cannot be built .*nosuch"),
        (MOBILENET, {"weights": "imagenet"}, "leave it out"),
        (MOBILENET, {"classifier_activation": {"class_name": "function"}}, "expected numbers, text"),
        (MOBILENET, {"include_top": False, "pooling": "avg"}, "1280 outputs, and model.classes is 2"),
        (MOBILENET, {"include_top": False}, "one image"),
        ("keras.applications.InceptionV3", {}, "cannot be built .*at least 75x75"),
        ("cancernet", {"depth": 4}, "(4, 20, 20), not (3, 20, 20)"),
        ("tests.model.networks.give_logits", {}, "ends with linear; with 2 outputs it must end with softmax"),
        ("tests.model.networks.ignore_everything", {}, "5 outputs"),
        ("tests.model.networks.return_nothing", {}, "returns NoneType, not a Keras model"),
        ("tests.model.networks.break_down", {}, "no network for 2 classes"),
    ],
)
def test_what_is_no_network_gets_one_clear_line(name, arguments, words):
    size = 48 if name == MOBILENET else 20
    with pytest.raises(InputError) as caught:
        create_network(name, arguments, size, 2)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words.split(" .*"))
