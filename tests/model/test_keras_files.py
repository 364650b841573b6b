import io
import json
import pickle
import zipfile

import h5py
import keras
import numpy as np
import pytest
import torch

from cancernet.errors import InputError
from cancernet.model.fused.network import TorchNetwork
from cancernet.model.keras_files.weights import load_weights, read_weights
from cancernet.model.network import CancerNet
from tests.model.agreement import cancernet


def tutorial(size=48, classes=2, layers=None, **head):
    """The article's code: names are Keras' counters."""
    first = keras.config.image_data_format() == "channels_first"
    net = [keras.Input((3, size, size) if first else (size, size, 3))]
    for filters, repeats in ((32, 1), (64, 2), (128, 3)):
        for _ in range(repeats):
            net += [
                keras.layers.SeparableConv2D(filters, (3, 3), padding="same"),
                keras.layers.Activation("relu"),
                keras.layers.BatchNormalization(axis=1 if first else -1),
            ]
        net += [keras.layers.MaxPooling2D((2, 2)), keras.layers.Dropout(0.25)]
    net += [
        keras.layers.Flatten(**head),
        keras.layers.Dense(256),
        keras.layers.Activation("relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(classes),
        keras.layers.Activation("softmax" if classes == 2 else "sigmoid"),
    ]
    model = keras.Sequential(net if layers is None else layers(net))
    random = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


def save_as_keras_2(model, path):
    """The layout of `save_weights` in Keras 1 and 2, as `scripts/interop` finds it in files of tf_keras."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.3.1"
        for layer in model.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0".encode() for weight in layer.weights if "seed" not in weight.name]
            group.attrs["weight_names"] = names
            for name, value in zip(names, layer.get_weights(), strict=False):
                group[name.decode()] = value


def save(model, folder, form):
    path = folder / f"model{form}"
    if form == "_weights.h5":
        save_as_keras_2(model, path)
    elif form == ".weights.h5":
        model.save_weights(path)
    else:
        model.save(path)
    return path


def predictions(model, weights):
    """Return the probabilities of four images by Keras, and by the fused network with the weights that were read."""
    size, first = weights.image_size, keras.config.image_data_format() == "channels_first"
    image = np.random.default_rng(1).random((4, size, size, 3), dtype=np.float32)
    expected = np.asarray(model.predict(image.transpose(0, 3, 1, 2) if first else image, verbose=0))
    network = cancernet(size, weights.classes)
    load_weights(network, weights)
    with torch.no_grad():
        logits = network.eval()(torch.from_numpy(image).permute(0, 3, 1, 2))
    found = torch.sigmoid(logits) if weights.classes == 1 else torch.softmax(logits, dim=1)
    return expected, found.numpy()


@pytest.fixture(scope="module")
def model():
    tutorial()  # so that the second one's counters do not start at 0
    return tutorial()


@pytest.mark.filterwarnings("ignore:You are saving")
@pytest.mark.parametrize("form", [".keras", ".h5", ".weights.h5", "_weights.h5"])
def test_each_layout_gives_keras_own_probabilities(model, tmp_path, form):
    weights = read_weights(save(model, tmp_path, form))
    assert (weights.classes, weights.image_size) == (2, 48)
    assert weights.image_size_known == (form in (".keras", ".h5"))
    expected, found = predictions(model, weights)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("form", [".keras", "_weights.h5"])
def test_one_sigmoid_at_fifty_pixels_after_training(tmp_path, form):
    model = tutorial(size=50, classes=1)
    model.compile(loss="binary_crossentropy", optimizer="adam")
    model.fit(np.random.default_rng(0).random((4, 50, 50, 3)), np.array([0, 1, 0, 1]), verbose=0)
    weights = read_weights(save(model, tmp_path, form), image_size=50)
    assert weights.classes == 1
    expected, found = predictions(model, weights)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("flatten", ["channels_first", "channels_last"])
def test_channels_first_with_either_flatten(channels_first, tmp_path, flatten):
    """Told "channels_last", Keras' flatten leaves the channels first, and the dense kernel has another order."""
    model = tutorial(size=50, data_format=flatten)
    weights = read_weights(save(model, tmp_path, ".keras"))
    expected, found = predictions(model, weights)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    order = "hwc" if flatten == "channels_first" else "chw"
    again = read_weights(save(model, tmp_path, ".weights.h5"), image_size=50, flatten=order)
    np.testing.assert_array_equal(again.state["head_dense.kernel"], weights.state["head_dense.kernel"])
    with pytest.raises(InputError, match="contradicts"):
        read_weights(tmp_path / "model.keras", flatten="chw" if order == "hwc" else "hwc")


def test_functional_model_with_activations_inside_and_scaling_in_front(tmp_path):
    def rebuild(net):
        return [net[0], keras.layers.Rescaling(1 / 255), *net[1:]]

    sequential = tutorial(layers=rebuild)
    functional = keras.Model(sequential.inputs, sequential.outputs)
    functional.save(tmp_path / "functional.keras")
    weights = read_weights(tmp_path / "functional.keras")
    sequential.save_weights(tmp_path / "plain.weights.h5")
    plain = read_weights(tmp_path / "plain.weights.h5")
    assert all(np.array_equal(weights.state[name], plain.state[name]) for name in plain.state)


def test_temperature_is_folded_into_the_classifier(tmp_path):
    model = tutorial(layers=lambda net: [*net[:-1], keras.layers.Rescaling(0.5), net[-1]])
    model.save(tmp_path / "warm.keras")
    expected, found = predictions(model, read_weights(tmp_path / "warm.keras"))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_saved_cancernet_comes_back(tmp_path):
    model = CancerNet.build()
    model.save(tmp_path / "own.keras")
    state = TorchNetwork(model).state_dict()
    read = read_weights(tmp_path / "own.keras")
    assert read.image_size == 50
    assert all(torch.equal(torch.from_numpy(read.state[name]), value) for name, value in state.items())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda net: [*net[:-1], keras.layers.Activation("sigmoid")], ["dense 2, sigmoid", "dense 2, softmax"]),
        (
            lambda net: [net[0], net[1], net[3], net[2], *net[4:]],
            ["separable 32, norm, relu", "separable 32, relu, norm"],
        ),
        (
            lambda net: [*net[:3], keras.layers.BatchNormalization(epsilon=1e-5), *net[4:]],
            ["norm epsilon 1e-05", "relu, norm, pool"],
        ),
        (
            lambda net: [net[0], keras.layers.SeparableConv2D(16, 3, padding="same"), *net[2:]],
            ["1x1x3x16", "1x1x3x32"],
        ),
        (lambda net: [*net[:-2], keras.layers.Dense(5), net[-1]], ["256x5+5", "256x2+2"]),
    ],
)
def test_what_is_no_cancernet_is_refused_with_both_sides(tmp_path, change, words):
    tutorial(layers=change).save(tmp_path / "other.keras")
    with pytest.raises(InputError) as refusal:
        read_weights(tmp_path / "other.keras")
    for word in words:
        assert word in str(refusal.value)
    assert "\n" not in str(refusal.value)


class Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def with_lambda(net):
    return [net[0], keras.layers.Lambda(lambda x: x), *net[1:]]


@pytest.mark.parametrize("kind", ["lambda", "lambda.h5", "pickle", "torch", "custom"])
@pytest.mark.filterwarnings("ignore:You are saving")
def test_a_file_with_code_in_it_is_refused_and_not_run(model, tmp_path, kind):
    mark = tmp_path / "ran"
    path = tmp_path / ("model.h5" if kind == "lambda.h5" else "model.keras")
    if kind.startswith("lambda"):
        tutorial(layers=with_lambda).save(path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Payload(mark)))
    elif kind == "torch":
        torch.save({"weights": Payload(mark)}, path)
    else:
        model.save(tmp_path / "plain.keras")
        with zipfile.ZipFile(tmp_path / "plain.keras") as source, zipfile.ZipFile(path, "w") as target:
            config = json.loads(source.read("config.json"))
            config["config"]["layers"][2].update(module="evil.module", registered_name="Evil")
            target.writestr("config.json", json.dumps(config))
            target.writestr("model.weights.h5", source.read("model.weights.h5"))
    with pytest.raises(InputError, match="could run anything"):
        read_weights(path)
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["external", "soft", "elsewhere", "nan", "cut", "empty", "text"])
def test_a_hostile_or_damaged_file_is_refused(model, tmp_path, kind):
    path, secret = tmp_path / "w.weights.h5", tmp_path / "secret.h5"
    model.save_weights(path)
    place = "layers/dense/vars/0"
    if kind in ("external", "soft", "elsewhere", "nan"):
        with h5py.File(secret, "w") as file:
            file["x"] = np.zeros((4608, 256), np.float32)
        with h5py.File(path, "a") as file:
            old = file[place][()]
            del file[place]
            if kind == "nan":
                file[place] = np.full_like(old, np.nan)
            elif kind == "elsewhere":
                file.create_dataset(place, old.shape, "f4", external=[(str(secret), 0, old.nbytes)])
            else:
                file[place] = h5py.ExternalLink(str(secret), "/x") if kind == "external" else h5py.SoftLink("/layers")
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        path.write_bytes(b"" if kind == "empty" else b"weights")
    with pytest.raises(InputError, match=r"w\.weights\.h5"):
        read_weights(path)


def test_an_archive_that_would_unpack_without_end_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr("cancernet.model.keras_files.storage.LARGEST_MEMBER", 1000)
    model.save(tmp_path / "model.keras")
    with pytest.raises(InputError, match="would unpack"):
        read_weights(tmp_path / "model.keras")


def test_a_sequential_of_keras_2_without_a_dict(model, tmp_path):
    """Keras before 2.2.3 wrote the list of layers alone, and no data format in the flatten."""
    config = {"class_name": "Sequential", "config": []}
    for layer in model.layers:
        inner = {"name": layer.name, **{k: v for k, v in layer.get_config().items() if k != "data_format"}}
        config["config"].append({"class_name": type(layer).__name__, "config": inner})
    config["config"][0]["config"]["batch_input_shape"] = [None, 48, 48, 3]
    save_as_keras_2(model, tmp_path / "inner.h5")
    with h5py.File(tmp_path / "inner.h5") as source, h5py.File(tmp_path / "old.h5", "w") as target:
        group = target.create_group("model_weights")
        for name in source:
            source.copy(name, group)
        for name, value in source.attrs.items():
            group.attrs[name] = value
        target.attrs["model_config"] = json.dumps(config, default=str)
    expected, found = predictions(model, read_weights(tmp_path / "old.h5"))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_image_size_that_cannot_be(model, tmp_path):
    model.save_weights(tmp_path / "a.weights.h5")
    assert read_weights(tmp_path / "a.weights.h5", image_size=55).image_size == 55
    with pytest.raises(InputError, match="48 to 55"):
        read_weights(tmp_path / "a.weights.h5", image_size=64)
    model.save(tmp_path / "a.keras")
    with pytest.raises(InputError, match="contradicts"):
        read_weights(tmp_path / "a.keras", image_size=50)


def test_other_units_are_refused_with_the_way_out(model, tmp_path):
    model.save_weights(tmp_path / "a.weights.h5")
    with pytest.raises(InputError, match=r"--model\.classes 2"):
        load_weights(cancernet(classes=1), read_weights(tmp_path / "a.weights.h5"))


def test_nothing_but_hdf5_and_keras_zips(tmp_path):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("readme.txt", "hello")
    (tmp_path / "a.keras").write_bytes(archive.getvalue())
    with pytest.raises(InputError, match=r"config\.json"):
        read_weights(tmp_path / "a.keras")
    with pytest.raises(InputError, match="no file"):
        read_weights(tmp_path / "absent.h5")
    with pytest.raises(InputError, match="SavedModel"):
        read_weights(tmp_path)
