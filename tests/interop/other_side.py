"""The other side: what a reader of the tutorial has, in tf.keras 2 (tf_keras) or Keras 3, and none of our package.

Runs in an environment with TensorFlow: python other_side.py write|train FOLDER. The network is written as the tutorial
writes it, layer by layer, so that names carry Keras' own counters.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np


def tutorial_network(keras: Any, size: int, classes: int, data_format: str = "channels_last") -> Any:
    """The network of the article's cancernet.py."""
    first = data_format == "channels_first"
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
    return model


def write(folder: Path) -> None:
    """Save the network in every format and write what it says about the same images."""
    random = np.random.default_rng(0)
    cases = []
    for library in ("tf_keras", "keras"):
        keras = __import__(library)
        suffixes = {"v3": ".keras", "whole": ".h5", "weights_v3": ".weights.h5", "weights": "_weights.h5"}
        if library == "keras":
            del suffixes["weights"]
        for size, classes, data_format in (
            (48, 2, "channels_last"),
            (50, 1, "channels_last"),
            (50, 2, "channels_first"),
        ):
            keras.backend.set_image_data_format(
                data_format
            ) if library == "tf_keras" else keras.config.set_image_data_format(data_format)
            model = tutorial_network(keras, size, classes, data_format)
            model.set_weights(
                [random.normal(0.3 if w.ndim == 1 else 0, 0.1, w.shape) + (w.ndim == 1) for w in model.get_weights()]
            )
            image = random.random((8, size, size, 3), dtype=np.float32)
            kind = "categorical_crossentropy" if classes == 2 else "binary_crossentropy"
            model.compile(loss=kind, optimizer="adam")
            if data_format == "channels_last":
                label = np.eye(2)[[0, 1] * 4] if classes == 2 else np.array([0, 1] * 4)
                model.fit(image, label, verbose=0)
                answer = np.asarray(model.predict(image, verbose=0))
            else:  # TensorFlow's convolutions on the CPU know channels last only
                keras.backend.set_image_data_format(
                    "channels_last"
                ) if library == "tf_keras" else keras.config.set_image_data_format("channels_last")
                twin = tutorial_network(keras, size, classes)
                twin.set_weights(model.get_weights())
                answer = np.asarray(twin.predict(image, verbose=0))
            for name, suffix in suffixes.items():
                stem = f"{library}-{size}-{classes}-{data_format}-{name}"
                path = folder / (stem + suffix)
                if name.startswith("weights"):
                    model.save_weights(path)
                else:
                    model.save(path)
                np.savez(folder / f"{stem}.npz", image=image, answer=answer)
                cases.append({"file": path.name, "answer": f"{stem}.npz", "size": size, "classes": classes})
    (folder / "cases.json").write_text(json.dumps(cases))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    {"write": write}[sys.argv[1]](Path(sys.argv[2]))
