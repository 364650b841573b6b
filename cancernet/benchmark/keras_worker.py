"""Training and inference by Keras' own means, under the backend that KERAS_BACKEND names. Run by `rounds`.

Needs Keras, its backend and NumPy only, so that TensorFlow may live in an environment of its own.
"""

import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from cancernet.benchmark.turns import serve, timed

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np

from cancernet.model.network import CancerNet


def build_step(task: str, batch: int, jit: bool, bf16: bool, repeat: int) -> tuple[Callable[[], Any], int]:
    """Return a function that makes some steps as Keras makes them, and how many images it takes."""
    keras.config.set_dtype_policy("mixed_bfloat16" if bf16 else "float32")
    model = CancerNet.build()
    keras.config.set_dtype_policy("float32")
    model.compile(
        # Keras 3 knows no `decay`; a schedule costs nothing that shows here.
        optimizer=keras.optimizers.Adagrad(learning_rate=1e-2),
        loss="binary_crossentropy",
        jit_compile=jit,
    )
    generator = np.random.default_rng(0)
    count = batch * (repeat if task in ("fit", "predict") else 1)
    image = generator.random((count, 50, 50, 3), dtype=np.float32)
    label = np.eye(2, dtype=np.float32)[generator.integers(0, 2, count)]
    weights = {0: 1.0, 1: 2.52}
    if task == "fit":
        return lambda: model.fit(image, label, batch, verbose=0, shuffle=False, class_weight=weights), count
    if task == "predict":
        return lambda: model.predict(image, batch, verbose=0), count
    return lambda: model.train_on_batch(image, label, class_weight=weights), count


def main() -> None:
    """Answer turns."""
    steps: dict[tuple[Any, ...], tuple[Callable[[], Any], int]] = {}

    def answer(task: str, batch: int, jit: bool, bf16: bool, repeat: int) -> dict[str, Any]:
        key = (task, batch, jit, bf16, repeat)
        if key not in steps:
            steps[key] = build_step(*key)
        step, count = steps[key]
        return timed(step, repeat * batch // count, count)

    backend = keras.config.backend()
    name = "tensorflow-cpu" if backend == "tensorflow" and not _installed("tensorflow") else backend
    serve(answer, {"keras": keras.__version__, backend: version(name)})


def _installed(name: str) -> bool:
    try:
        version(name)
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    main()
