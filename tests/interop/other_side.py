"""The other side: what the tutorial's readers have, tf.keras 2 (tf_keras) or Keras 3 on TensorFlow, no cancernet.

Runs in an environment with TensorFlow: `python other_side.py write FOLDER`, `... train FOLDER`. The network is written
as the tutorial writes it, layer by layer, so that names carry Keras' own counters.
"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

CASES = ((48, 2, "channels_last"), (50, 1, "channels_last"), (50, 2, "channels_first"))
SUFFIXES = {"v3": ".keras", "whole": ".h5", "weights_v3": ".weights.h5", "weights": "_weights.h5"}


def tutorial_network(keras: Any, size: int, classes: int, data_format: str = "channels_last") -> Any:
    """The network of the article's cancernet.py."""
    first = data_format == "channels_first"
    _set_format(keras, data_format)
    layers, axis = keras.layers, 1 if first else -1
    model = keras.models.Sequential()
    model.add(layers.InputLayer((3, size, size) if first else (size, size, 3)))
    for filters, repeats in ((32, 1), (64, 2), (128, 3)):
        for _ in range(repeats):
            model.add(layers.SeparableConv2D(filters, (3, 3), padding="same"))
            model.add(layers.Activation("relu"))
            model.add(layers.BatchNormalization(axis=axis))
        model.add(layers.MaxPooling2D(pool_size=(2, 2)))
        model.add(layers.Dropout(0.25))
    model.add(layers.Flatten())
    model.add(layers.Dense(256))
    model.add(layers.Activation("relu"))
    model.add(layers.BatchNormalization())
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(classes))
    model.add(layers.Activation("softmax" if classes == 2 else "sigmoid"))
    _set_format(keras, "channels_last")
    return model


def _set_format(keras: Any, data_format: str) -> None:
    (keras.backend if keras.__name__.startswith("tf_keras") else keras.config).set_image_data_format(data_format)


def write(folder: Path) -> None:
    """Save the network in every format, with its optimiser, and its predictions for the same images."""
    random = np.random.default_rng(0)
    cases = []
    for library in ("tf_keras", "keras"):
        keras = importlib.import_module(library)
        for size, classes, data_format in CASES:
            model = tutorial_network(keras, size, classes, data_format)
            for layer in model.layers:
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
            image = random.random((8, size, size, 3), dtype=np.float32)
            model.compile(loss="categorical_crossentropy" if classes == 2 else "binary_crossentropy", optimizer="adam")
            predictor = model
            if data_format == "channels_first":
                # TensorFlow's CPU convolutions know channels last only, so a twin predicts; the two flatten alike.
                predictor = tutorial_network(keras, size, classes)
                predictor.set_weights(model.get_weights())
            else:
                model.fit(image, np.eye(2)[[0, 1] * 4] if classes == 2 else np.array([0, 1] * 4), verbose=0)
            probability = np.asarray(predictor.predict(image, verbose=0))
            for name, suffix in SUFFIXES.items():
                if library == "keras" and name == "weights":
                    continue  # Keras 3 no longer writes it
                path = folder / f"{library}-{size}-{classes}-{data_format}-{name}{suffix}"
                (model.save_weights if name.startswith("weights") else model.save)(path)
                np.savez(path.with_suffix(".npz"), image=image, probability=probability)
                cases.append({"file": path.name, "size": size, "classes": classes})
    (folder / "cases.json").write_text(json.dumps(cases))


def train(folder: Path) -> None:
    """Train as the 2020 tutorial does, in tf.keras 2 itself: its Adagrad with decay, class weights, `fit`.

    Reads task.npz: image, label, settings and the initial weights in Keras' order; writes trained.npz.
    """
    keras = importlib.import_module("tf_keras")
    keras.backend.set_floatx("float64")
    task = np.load(folder / "task.npz")
    image, label, batch = task["image"], task["label"], int(task["batch"])
    model = tutorial_network(keras, image.shape[1], 2)
    model.set_weights([task[f"weight{i}"] for i in range(len(model.weights))])
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.fused = (
                False  # TensorFlow's fused kernel knows single precision only, and stores the unbiased variance
            )
    optimizer = keras.optimizers.legacy.Adagrad(
        learning_rate=float(task["rate"]),
        decay=float(task["decay"]),
        initial_accumulator_value=float(task["accumulator"]),
    )
    # The article says binary cross-entropy. Of a softmax that is the same number, but tf.keras 2 takes the logits from
    # behind the softmax and puts a sigmoid on each: another loss than what is written. Keras 1 and 3 do not.
    model.compile(loss="categorical_crossentropy", optimizer=optimizer)
    losses: list[float] = []

    class Losses(keras.callbacks.Callback):  # type: ignore[name-defined]
        def on_train_batch_end(self, step: int, logs: dict[str, float]) -> None:
            losses.append((step + 1) * logs["loss"] - sum(losses))

    weights = dict(enumerate(task["class_weights"].tolist()))
    model.fit(
        image,
        np.eye(2)[label],
        batch_size=batch,
        shuffle=False,
        class_weight=weights,
        verbose=0,
        callbacks=[Losses()],
    )
    np.savez(folder / "trained.npz", losses=losses, **{f"weight{i}": w for i, w in enumerate(model.get_weights())})


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    {"write": write, "train": train}[sys.argv[1]](Path(sys.argv[2]))
