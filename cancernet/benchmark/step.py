"""Sections `step`, `inference` and `networks`: one batch after the other, by every way to run the same network."""

from contextlib import ExitStack
from typing import Any

from cancernet.benchmark.rounds import Contender, Figure, Worker, race

TURN_IMAGES = {"train": 768, "predict": 2048}
"""A turn takes about this many images: one to three seconds on two cores."""
NETWORKS = ("cancernet", "compact", "keras.applications.MobileNetV2")
"""Of `configs/`."""
KEPT = "hand-written, our memory"
"""The hand-written network in a process that keeps what it frees, as ours does: so that the network alone differs."""


def measure_steps(
    task: str, batches: list[int], rounds: int, tensorflow: str | None, jit: bool, precisions: list[str]
) -> dict[str, list[Figure]]:
    """Race ours, the hand-written network and Keras' own ways.

    Args:
        task: `train` or `predict`.
        batches: Batch sizes.
        rounds: Turns that count.
        tensorflow: Interpreter of an environment with TensorFlow and Keras; None leaves them out.
        jit: Keras' `jit_compile` on TensorFlow. On a CPU, XLA takes ten times as long for these convolutions.
        precisions: `fp32`, `bf16` or both.

    Returns:
        The figures of each batch size, under its heading.
    """
    with ExitStack() as stack:
        workers = {
            "ours": stack.enter_context(Worker("cancernet.benchmark.torch_worker", "ours", "kept")),
            "hand-written": stack.enter_context(Worker("cancernet.benchmark.torch_worker", "handwritten")),
            KEPT: stack.enter_context(Worker("cancernet.benchmark.torch_worker", "handwritten", "kept")),
            "Keras on torch": stack.enter_context(keras_worker("torch", None)),
        }
        if tensorflow is not None:
            workers["Keras on TensorFlow"] = stack.enter_context(keras_worker("tensorflow", tensorflow))
        tables = {}
        for batch in batches:
            tables[f"{task}, batch {batch}"] = race(_contenders(task, batch, workers, jit, precisions), rounds)
        return tables


def measure_networks(batch: int, rounds: int, precisions: list[str]) -> list[Figure]:
    """Race the networks that the shipped configurations train, uncompiled."""
    with Worker("cancernet.benchmark.torch_worker", "ours", "kept") as ours:
        contenders = []
        for task, name in (("train", "training step"), ("predict", "inference")):
            shared = {"task": task, "batch": batch, "repeat": _steps(task, batch), "compiled": False}
            for precision in precisions:
                for network in NETWORKS:
                    request = {**shared, "bf16": precision == "bf16", "network": network}
                    contenders.append(Contender(f"{network}, {name}, {precision}", ours, request))
        return race(contenders, rounds)


def _steps(task: str, batch: int) -> int:
    """Return how many steps a turn makes."""
    return max(1, min(32, TURN_IMAGES[task] // batch))


def keras_worker(backend: str, python: str | None) -> Worker:
    """Start a process in which Keras runs on a backend."""
    return Worker("cancernet.benchmark.keras_worker", python=python, environment={"KERAS_BACKEND": backend})


def _contenders(task: str, batch: int, workers: dict[str, Worker], jit: bool, precisions: list[str]) -> list[Contender]:
    contenders: list[Contender] = []
    repeat = _steps(task, batch)

    def add(who: str, how: str, **request: Any) -> None:
        contenders.append(Contender(f"{who}, {how}", workers[who], {"batch": batch, "repeat": repeat, **request}))

    for precision in precisions:
        bf16 = precision == "bf16"
        for who in ("ours", "hand-written", KEPT):
            for compiled in (False, True):
                how = "compiled" if compiled else "eager"
                add(who, f"{how}, {precision}", task=task, compiled=compiled, bf16=bf16)
        for way in ("fit", "train_on_batch") if task == "train" else ("predict",):
            if not bf16:
                add("Keras on torch", f"{way}, {precision}", task=way, jit=False, bf16=bf16)
            if "Keras on TensorFlow" in workers:
                how = f"{way}, jit_compile={jit}, {precision}"
                add("Keras on TensorFlow", how, task=way, jit=jit, bf16=bf16)
    return contenders
