# mypy: allow-untyped-defs, allow-incomplete-defs

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import cancernet
from cancernet.cancernet import CancerNet
from cancernet.errors import InputError
from cancernet.model.backend import avoid_missing_tensorflow


def run_python(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    clean = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **environment}, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(("size", "classes", "total"), [(48, 2, 1_235_133), (50, 2, 1_235_133), (50, 1, 1_234_876)])
def test_parameter_counts_are_those_of_the_original(size, classes, total):
    model = CancerNet.build(width=size, height=size, depth=3, classes=classes)
    assert model.count_params() == total
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == total - 1_600
    assert sum(int(np.prod(w.shape)) for w in model.non_trainable_weights) == 1_600


def test_counts_and_shapes_by_layer():
    model = CancerNet.build(width=48, height=48)
    count = {layer.name: layer.count_params() for layer in model.layers}
    assert [count[f"block{b}_conv{i}"] for b, i in [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3)]] == [
        155,
        2_400,
        4_736,
        8_896,
        17_664,
        17_664,
    ]
    assert (count["head_dense"], count["head_norm"], count["classifier"]) == (1_179_904, 1_024, 514)
    assert [model.get_layer(f"block{b}_pool").output.shape[1:] for b in (1, 2, 3)] == [
        (24, 24, 32),
        (12, 12, 64),
        (6, 6, 128),
    ]


def test_constants_are_keras_2019_defaults():
    model = CancerNet.build()
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (layer.momentum, layer.epsilon) == (0.99, 1e-3)
        if isinstance(layer, keras.layers.SeparableConv2D):
            kinds = {type(layer.depthwise_initializer).__name__, type(layer.pointwise_initializer).__name__}
            assert kinds == {"GlorotUniform"}
            assert not np.any(np.asarray(layer.bias))
        if isinstance(layer, keras.layers.Dropout):
            assert layer.seed is None
    assert [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [0.25, 0.25, 0.25, 0.5]


def test_order_inside_a_unit_is_convolution_relu_norm():
    names = [layer.name for layer in CancerNet.build().layers]
    assert names[:5] == ["block1_conv1", "block1_relu1", "block1_norm1", "block1_pool", "block1_dropout"]
    assert names[-4:] == ["head_norm", "head_dropout", "classifier", "probability"]


def test_names_do_not_depend_on_models_built_before():
    first, second = CancerNet.build(), CancerNet.build()
    assert [w.path for w in first.weights] == [w.path for w in second.weights]
    assert first.name == second.name == "cancernet"


@pytest.mark.parametrize(("classes", "activation"), [(1, "sigmoid"), (2, "softmax"), (5, "softmax")])
def test_output_is_a_probability(classes, activation):
    model = CancerNet.build(classes=classes)
    assert model.output_shape == (None, classes)
    assert model.get_layer("probability").activation.__name__ == activation


def test_channels_first_has_the_same_weights_and_output(channels_first):
    first = CancerNet.build(width=20, height=16)
    assert first.input_shape == (None, 3, 16, 20)
    keras.config.set_image_data_format("channels_last")
    last = CancerNet.build(width=20, height=16)
    last.set_weights(first.get_weights())
    image = np.random.default_rng(0).random((2, 3, 16, 20), dtype=np.float32)
    np.testing.assert_allclose(
        np.asarray(first.predict(image, verbose=0)),
        np.asarray(last.predict(image.transpose(0, 2, 3, 1), verbose=0)),
        atol=1e-6,
    )


@pytest.mark.parametrize("size", [8, 9])
def test_smallest_size_builds(size):
    assert CancerNet.build(width=size, height=size).get_layer("block3_pool").output.shape == (None, 1, 1, 128)


@pytest.mark.parametrize(
    "arguments",
    [{"width": 7}, {"height": 0}, {"depth": 0}, {"classes": 0}, {"classes": True}, {"width": 50.0}, {"classes": "2"}],
)
def test_what_the_network_cannot_take_is_refused_with_the_value(arguments):
    name, value = next(iter(arguments.items()))
    with pytest.raises(InputError, match=f"{name} .*Received: {value!r}"):
        CancerNet.build(**arguments)


def test_tutorial_script_runs():
    model = CancerNet.build(width=48, height=48, depth=3, classes=2)
    model.compile(loss="binary_crossentropy", optimizer=keras.optimizers.Adagrad(1e-2), metrics=["accuracy"])
    image = np.random.default_rng(0).random((8, 48, 48, 3), dtype=np.float32)
    history = model.fit(image, np.eye(2)[[0, 1] * 4], batch_size=4, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    assert cancernet.CancerNet is CancerNet


def test_importing_the_package_is_light():
    heavy = run_python(
        "import sys, cancernet; print([m for m in ('keras', 'torch', 'numpy', 'cancernet.model') if m in sys.modules])"
    )
    assert heavy == "[]"


def test_network_needs_no_torch_and_fused_package_refuses_another_backend():
    # A hollow Keras on "jax": no other backend of Keras' is installed with the tests, its NumPy one needs JAX too.
    code = """
import sys
from unittest.mock import MagicMock
sys.modules['keras'] = keras = MagicMock()
keras.config.backend.return_value = 'jax'
from cancernet import CancerNet
from cancernet.errors import InputError
CancerNet.build(width=16, height=16)
assert 'torch' not in sys.modules
try:
    import cancernet.model.fused.network
except InputError as error:
    print(error)
"""
    assert "'jax': set KERAS_BACKEND=torch" in run_python(code)


@pytest.mark.parametrize("module", ["cancernet.model.registry", "cancernet.export.writers"])
def test_modules_outside_the_fused_package_put_keras_on_torch_too(module):
    code = f"import {module}, keras; print(keras.config.backend())"
    assert run_python(code, KERAS_BACKEND="jax") == "torch"


def test_backend_that_the_user_named_is_not_overruled(monkeypatch):
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    avoid_missing_tensorflow()
    assert os.environ["KERAS_BACKEND"] == "jax"


@pytest.mark.parametrize(
    ("installed", "content", "chosen"),
    [
        ({"torch"}, "", "torch"),
        ({"torch"}, '{"backend": "tensorflow"}', "torch"),
        ({"torch"}, '{"backend": "jax"}', None),
        ({"torch", "tensorflow"}, "", None),
        (set(), "", None),
    ],
)
def test_torch_is_chosen_only_where_tensorflow_is_missing(monkeypatch, tmp_path, installed, content, chosen):
    monkeypatch.delitem(sys.modules, "keras")
    monkeypatch.setenv("KERAS_BACKEND", "")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("cancernet.model.backend.find_spec", lambda name: name if name in installed else None)
    (tmp_path / "keras.json").write_text(content)
    avoid_missing_tensorflow()
    assert (os.environ["KERAS_BACKEND"] or None) == chosen
