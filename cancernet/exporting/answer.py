"""Ask an exported file for its answers, as someone without our package would. Run as a script, never imported.

    python -I answer.py FORMAT FILE PATCHES.npy ANSWERS.npy

PATCHES.npy holds (N, H, W, 3) uint8; ANSWERS.npy gets (N,) float64 probabilities of IDC. One line of JSON goes to
standard output: `runtime` (name and version), or `missing`, the package that is not installed (exit status 3).
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Answer = Callable[[np.ndarray], np.ndarray]

EPSILON = 1e-3
"""What Keras' batch norm adds to the variance."""


def open_keras(file: str) -> tuple[Answer, str]:
    """Open a `.keras` file in Keras, on the backend that the environment names."""
    import keras

    model = keras.saving.load_model(file, compile=False)
    dtype = model.inputs[0].dtype
    return lambda patches: np.asarray(model.predict(patches.astype(dtype), verbose=0)), _keras_version(keras)


def open_weights(file: str) -> tuple[Answer, str]:
    """Load `.weights.h5` into the network of the configuration that lies beside the file, which takes [0, 1]."""
    import keras

    with open(f"{file}.json", encoding="utf-8") as text:  # noqa: PTH123
        model = keras.models.model_from_json(text.read())
    model.load_weights(file)
    return lambda patches: np.asarray(model.predict(patches / np.float32(255), verbose=0)), _keras_version(keras)


def open_onnx(file: str) -> tuple[Answer, str]:
    """Open an ONNX file in onnxruntime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    dtype = "uint8" if "uint8" in image.type else "float32"
    version = f"onnxruntime {onnxruntime.__version__}"
    return lambda patches: session.run(None, {image.name: patches.astype(dtype)})[0], version


def open_torch(file: str) -> tuple[Answer, str]:
    """Open a program of torch.export."""
    import torch

    extra = {"cancernet.json": ""}
    module = torch.export.load(file, extra_files=extra).module()
    dtype = json.loads(extra["cancernet.json"])["input"]["dtype"]

    def answer(patches: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(patches.astype(dtype))).numpy()

    return answer, f"torch {torch.__version__}"


def open_safetensors(file: str) -> tuple[Answer, str]:
    """Compute the network from its weights with NumPy alone, by what the metadata say."""
    import safetensors.numpy

    with safetensors.safe_open(file, "numpy") as opened:
        settings = json.loads(opened.metadata()["cancernet"])
    weights = safetensors.numpy.load_file(file)
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in weights))

    def answer(patches: np.ndarray) -> np.ndarray:
        return _compute(weights, sorted(names), patches / np.float32(255)) / settings["temperature"]

    return lambda patches: _probability(answer(patches)), f"safetensors {safetensors.__version__} and NumPy"


def _compute(weights: dict[str, np.ndarray], names: list[str], x: np.ndarray) -> np.ndarray:
    """Return the logits (N, classes) of images (N, H, W, 3) in [0, 1]."""
    for block in (1, 2, 3):
        for conv in [name for name in names if name.startswith(f"block{block}_conv")]:
            x = np.maximum(_separable(weights, conv, x), 0)
            x = _norm(weights, conv.replace("conv", "norm"), x)
        height, width = x.shape[1] // 2, x.shape[2] // 2
        x = x[:, : 2 * height, : 2 * width].reshape(len(x), height, 2, width, 2, -1).max(axis=(2, 4))
    x = x.reshape(len(x), -1) @ weights["head_dense.kernel"] + weights["head_dense.bias"]
    x = _norm(weights, "head_norm", np.maximum(x, 0))
    return x @ weights["classifier.kernel"] + weights["classifier.bias"]


def _separable(weights: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    kernel = weights[f"{name}.depthwise_kernel"]
    _, height, width, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifts = [(i, j) for i in range(3) for j in range(3)]
    x = sum(padded[:, i : i + height, j : j + width] * kernel[i, j, :, 0] for i, j in shifts)
    return x @ weights[f"{name}.pointwise_kernel"][0, 0] + weights[f"{name}.bias"]


def _norm(weights: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    return (x - mean) / np.sqrt(variance + EPSILON) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _probability(logits: np.ndarray) -> np.ndarray:
    logit = logits[:, 1:] - logits[:, :1] if logits.shape[1] == 2 else logits
    return 1 / (1 + np.exp(-logit.astype(np.float64)))


def _keras_version(keras: Any) -> str:
    backend = keras.config.backend()
    return f"Keras {keras.__version__} on {backend} {importlib.import_module(backend).__version__}"


OPENERS = {
    "keras": open_keras,
    "weights": open_weights,
    "onnx": open_onnx,
    "torch": open_torch,
    "safetensors": open_safetensors,
}


def main(form: str, file: str, patches: str, answers: str) -> int:
    """Answer, first for one patch and then for many at a time: the batch size is to be free."""
    try:
        answer, runtime = OPENERS[form](file)
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": error.name}))
        return 3
    images = np.load(patches)
    parts = [answer(part) for part in np.split(images, range(1, len(images), 128)) if len(part)]
    np.save(answers, np.concatenate(parts)[:, -1].astype(np.float64))
    if "cancernet" in sys.modules:
        raise RuntimeError("cancernet was imported: this says nothing about a place without it")
    print(json.dumps({"runtime": runtime}))
    return 0


if __name__ == "__main__":
    # TensorFlow greets at length.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(*sys.argv[1:]))
