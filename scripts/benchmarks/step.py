"""Sections `step`, `inference` and `networks`: batch after batch through the same network, run in every way.

Run as a module it is the worker of the ways in torch. Arguments: `cancernet` (this project's network) or `handwritten`,
and `kept` where the process keeps the memory it frees, as this project's training does.
"""

import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cancernet.model.registry import create_network
from cancernet.training.acceleration import compile_network, keep_freed_memory
from scripts.benchmarks.machine import child_environment
from scripts.benchmarks.race import Contender, Figure, race
from scripts.benchmarks.worker import Worker, serve, time_steps

TURN_IMAGES = {"train": 768, "predict": 2048}
"""Images of a turn, about: one to three seconds on two cores."""
NETWORKS = ("cancernet", "compact", "residual", "keras.applications.MobileNetV2")
"""Networks of `configs/`."""
KEPT = "hand-written, memory kept"
"""The hand-written network in a process that keeps freed memory, as CancerNet's does: only the network differs."""
IDC_WEIGHT = 2.52
"""Weight of IDC patches in the loss: benign patches over IDC patches in the archive."""

Step = Callable[[], Any]


def measure_steps(
    task: str, batches: list[int], rounds: int, tensorflow: str | None, jit: bool, precisions: list[str]
) -> dict[str, list[Figure]]:
    """Race CancerNet, the same network hand-written in torch, and Keras' own training and inference.

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
            "CancerNet": stack.enter_context(torch_worker("cancernet", "kept")),
            "hand-written": stack.enter_context(torch_worker("handwritten")),
            KEPT: stack.enter_context(torch_worker("handwritten", "kept")),
            "Keras on torch": stack.enter_context(_keras_worker("torch", None)),
        }
        if tensorflow is not None:
            workers["Keras on TensorFlow"] = stack.enter_context(_keras_worker("tensorflow", tensorflow))
        return {
            f"{task}, batch {batch}": race(_contenders(task, batch, workers, jit, precisions), rounds)
            for batch in batches
        }


def measure_networks(batch: int, rounds: int, precisions: list[str]) -> list[Figure]:
    """Race the networks that the shipped configurations train, uncompiled."""
    with torch_worker("cancernet", "kept") as worker:
        contenders = []
        for task, name in (("train", "training step"), ("predict", "inference")):
            shared = {"task": task, "batch": batch, "repeat": _steps(task, batch), "compiled": False}
            for precision in precisions:
                for network in NETWORKS:
                    request = {**shared, "bf16": precision == "bf16", "network": network}
                    contenders.append(Contender(f"{network}, {name}, {precision}", worker, request))
        return race(contenders, rounds)


def torch_worker(*arguments: str) -> Worker:
    """Start a worker of this module."""
    return Worker("scripts.benchmarks.step", *arguments, environment=child_environment(KERAS_BACKEND="torch"))


def _keras_worker(backend: str, python: str | None) -> Worker:
    environment = child_environment(KERAS_BACKEND=backend, TF_CPP_MIN_LOG_LEVEL="2")
    return Worker("scripts.benchmarks.keras_worker", python=python, environment=environment)


def _steps(task: str, batch: int) -> int:
    """Return the number of steps in a turn."""
    return max(1, min(32, TURN_IMAGES[task] // batch))


def _contenders(task: str, batch: int, workers: dict[str, Worker], jit: bool, precisions: list[str]) -> list[Contender]:
    contenders: list[Contender] = []
    repeat = _steps(task, batch)

    def add(name: str, how: str, **request: Any) -> None:
        contenders.append(Contender(f"{name}, {how}", workers[name], {"batch": batch, "repeat": repeat, **request}))

    for precision in precisions:
        bf16 = precision == "bf16"
        for name in ("CancerNet", "hand-written", KEPT):
            for compiled in (False, True):
                how = "compiled" if compiled else "eager"
                add(name, f"{how}, {precision}", task=task, compiled=compiled, bf16=bf16)
        for method in ("fit", "train_on_batch") if task == "train" else ("predict",):
            if not bf16:
                add("Keras on torch", f"{method}, {precision}", task=method, jit=False, bf16=bf16)
            if "Keras on TensorFlow" in workers:
                how = f"{method}, jit_compile={jit}, {precision}"
                add("Keras on TensorFlow", how, task=method, jit=jit, bf16=bf16)
    return contenders


def build_handwritten(size: int = 50) -> nn.Sequential:
    """Build CancerNet in torch alone, channels-last: (B, 3, size, size) to logits (B, 2)."""
    layers: list[nn.Module] = []
    channels = 3
    for filters, convolutions in ((32, 1), (64, 2), (128, 3)):
        for _ in range(convolutions):
            layers += [
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
                nn.Conv2d(channels, filters, 1),
                nn.ReLU(),
                nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01),
            ]
            channels = filters
        layers += [nn.MaxPool2d(2), nn.Dropout(0.25)]
    side = size // 8
    layers += [nn.Flatten(), nn.Linear(128 * side * side, 256), nn.ReLU(), nn.BatchNorm1d(256, 1e-3, 0.01)]
    layers += [nn.Dropout(0.5), nn.Linear(256, 2)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def difference(logits: Tensor) -> Tensor:
    """Return z1 - z0, the logit of IDC, (B,) float32 from logits (B, 2)."""
    logits = logits.float()
    return logits[:, 1] - logits[:, 0]


def weighted_loss(logit: Tensor, label: Tensor) -> Tensor:
    """Return the binary cross-entropy with IDC weighted by `IDC_WEIGHT`."""
    weight = torch.where(label > 0, IDC_WEIGHT, 1.0)
    return F.binary_cross_entropy_with_logits(logit, label.float(), weight)


def adagrad(network: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of 2019."""
    return torch.optim.Adagrad(network.parameters(), lr=1e-2, lr_decay=2.5e-4, eps=1e-7)


def main(kind: str, *switches: str) -> None:
    """Answer with the speed of training or inference steps on a fixed random batch.

    Both kinds make the forward pass, the weighted loss, the backward pass and the update of Adagrad.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if "kept" in switches and device.type == "cpu":
        keep_freed_memory()
    steps: dict[tuple[Any, ...], Step] = {}

    def build(compiled: bool, name: str) -> nn.Module:
        if kind == "handwritten":
            handwritten = build_handwritten().to(device)
            if compiled:
                handwritten.compile(fullgraph=True)
            return handwritten
        network = create_network(name, {}, 50, 2).to(device)
        if compiled:
            compile_network(network, device)
        return network

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    def build_step(task: str, batch: int, compiled: bool, bf16: bool, name: str) -> Step:
        network = build(compiled, name).train(task == "train")
        image = torch.rand(batch, 3, 50, 50, device=device).contiguous(memory_format=torch.channels_last)
        label = (torch.rand(batch, device=device) < 0.3).float()
        optimizer = adagrad(network)

        def train() -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                loss = weighted_loss(difference(network(image)), label)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            finish()

        def predict() -> None:
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                torch.sigmoid(difference(network(image)))
            finish()

        return train if task == "train" else predict

    def answer(
        task: str, batch: int, compiled: bool, bf16: bool, repeat: int, network: str = "cancernet"
    ) -> dict[str, Any]:
        key = (task, batch, compiled, bf16, network)
        if key not in steps:
            # Compiled code belongs to one network and one shape: what was compiled before must not spoil it.
            torch._dynamo.reset()
            steps[key] = build_step(*key)
        return time_steps(steps[key], repeat, batch)

    serve(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
