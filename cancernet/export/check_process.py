"""Open an exported file without the package cancernet and compute probabilities. Run as a script, never imported.

    python -I check_process.py FORMAT FILE PATCHES.npy PROBABILITIES.npy

PATCHES.npy holds (N, H, W, 3) uint8; PROBABILITIES.npy gets (N,) float64, the probability of IDC. One line of JSON goes
to standard output: `runtime` (name and version), or `missing`, the package that is not installed (exit status 3).
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

Model = Callable[[np.ndarray], np.ndarray]
"""Patches (N, H, W, 3), uint8, to probabilities (N, classes)."""


def open_keras(file: str) -> tuple[Model, str]:
    """Open a `.keras` file in Keras, on the backend that the environment names."""
    import keras

    model = keras.saving.load_model(file, compile=False)
    dtype = model.inputs[0].dtype
    return lambda patches: np.asarray(model.predict(patches.astype(dtype), verbose=0)), _keras_version(keras)


def open_weights(file: str) -> tuple[Model, str]:
    """Load `.weights.h5` into the network of the configuration FILE.json, which takes [0, 1]."""
    import keras

    with open(f"{file}.json", encoding="utf-8") as text:  # noqa: PTH123
        model = keras.models.model_from_json(text.read())
    model.load_weights(file)
    return lambda patches: np.asarray(model.predict(patches / np.float32(255), verbose=0)), _keras_version(keras)


def open_onnx(file: str) -> tuple[Model, str]:
    """Open an ONNX file in onnxruntime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0]
    dtype = "uint8" if "uint8" in image.type else "float32"
    version = f"onnxruntime {onnxruntime.__version__}"
    return lambda patches: session.run(None, {image.name: patches.astype(dtype)})[0], version


def open_torch(file: str) -> tuple[Model, str]:
    """Open a program of torch.export."""
    import torch

    extra = {"cancernet.json": ""}
    module = torch.export.load(file, extra_files=extra).module()
    dtype = json.loads(extra["cancernet.json"])["input"]["dtype"]

    def run(patches: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(torch.from_numpy(patches.astype(dtype))).numpy()

    return run, f"torch {torch.__version__}"


def open_wsinfer(file: str) -> tuple[Model, str]:
    """Open the TorchScript of a WSInfer model, and treat patches as its configuration says."""
    import torch

    with open(f"{file}/config.json", encoding="utf-8") as text:  # noqa: PTH123
        configuration = json.load(text)
    module = torch.jit.load(f"{file}/torchscript_model.pt")
    size = configuration["cancernet"]["image_size"]

    def run(patches: np.ndarray) -> np.ndarray:
        if patches.shape[1:] != (size, size, 3):
            raise ValueError(f"patches of {size} pixels are needed, not {patches.shape}")
        with torch.inference_mode():
            tiles = torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 255
            return torch.softmax(module(tiles), dim=1).numpy()

    return run, f"TorchScript in torch {torch.__version__}"


def _keras_version(keras: Any) -> str:
    backend = keras.config.backend()
    return f"Keras {keras.__version__} on {backend} {importlib.import_module(backend).__version__}"


OPENERS = {
    "keras": open_keras,
    "weights": open_weights,
    "onnx": open_onnx,
    "torch": open_torch,
    "wsinfer": open_wsinfer,
}


def main(form: str, file: str, patches: str, probabilities: str) -> int:
    """Run the model for one patch, then for many at a time: the batch size has to be free."""
    try:
        model, runtime = OPENERS[form](file)
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": error.name}))
        return 3
    images = np.load(patches)
    results = [model(batch) for batch in np.split(images, range(1, len(images), 128)) if len(batch)]
    np.save(probabilities, np.concatenate(results)[:, -1].astype(np.float64))
    if "cancernet" in sys.modules:
        raise RuntimeError("cancernet was imported: this proves nothing about an environment without it")
    print(json.dumps({"runtime": runtime}))
    return 0


if __name__ == "__main__":
    # TensorFlow logs at length.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(*sys.argv[1:]))
