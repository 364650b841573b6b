"""The worker that trains and predicts by Keras' own methods, on the backend that KERAS_BACKEND names.

Needs Keras, its backend and NumPy only, so that TensorFlow can live in an environment of its own.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from cancernet.model.network import CancerNet
from scripts.benchmarks.worker import serve, time_steps


def build_step(task: str, batch: int, jit: bool, bf16: bool, repeat: int) -> tuple[Callable[[], Any], int]:
    """Return a function that trains or predicts by a method of `keras.Model`, and how many images it takes."""
    keras.config.set_dtype_policy("mixed_bfloat16" if bf16 else "float32")
    model = CancerNet.build()
    keras.config.set_dtype_policy("float32")
    model.compile(
        # Keras 3 has no `decay`; a schedule in its place costs nothing that shows here.
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
    """Answer with the speed of a method."""
    steps: dict[tuple[Any, ...], tuple[Callable[[], Any], int]] = {}

    def answer(task: str, batch: int, jit: bool, bf16: bool, repeat: int) -> dict[str, Any]:
        key = (task, batch, jit, bf16, repeat)
        if key not in steps:
            steps[key] = build_step(*key)
        step, count = steps[key]
        return time_steps(step, repeat * batch // count, count)

    serve(answer)


if __name__ == "__main__":
    main()
