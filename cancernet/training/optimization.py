"""Optimisers and learning-rate schedules."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from cancernet.errors import InputError


@dataclass(frozen=True)
class OptimizerSettings:
    """Which optimiser trains, with torch's names for its settings.

    `adagrad` is the rule of Keras 2.2.4 (2019): the step is lr_t g / (sqrt(sum g^2) + 1e-7) with lr_t = lr / (1 +
    lr_decay t); `initial_accumulator_value=0.1` makes it tf.keras 2's (2020).

    Args:
        name: `adagrad`, `adamw` or `sgd` (with Nesterov momentum).
        lr: Peak learning rate, above 0.
        weight_decay: For `adamw` and `sgd`; on kernels only, never on biases and batch norm.
        momentum: For `sgd`.
        lr_decay: For `adagrad`, per update.
        initial_accumulator_value: For `adagrad`: where the sums of squares start.
    """

    name: Literal["adagrad", "adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    lr_decay: float = 0.0
    initial_accumulator_value: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise InputError(f"model.optimizer.lr: expected a number above 0, got {self.lr}")


@dataclass(frozen=True)
class ScheduleSettings:
    """How the learning rate moves over a run.

    Args:
        name: `constant`, or `cosine` down to 0 at the last update.
        warmup: Share of all updates, 0 to below 1, in which the rate first rises linearly.
    """

    name: Literal["constant", "cosine"] = "constant"
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise InputError(f"model.schedule.warmup: expected a share of the run from 0 to below 1, got {self.warmup}")


def build_optimizer(network: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """Build an optimiser over the trainable parameters."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if settings.name == "adagrad":
        return torch.optim.Adagrad(
            trainable,
            lr=settings.lr,
            lr_decay=settings.lr_decay,
            eps=1e-7,
            initial_accumulator_value=settings.initial_accumulator_value,
        )
    groups: list[dict[str, Any]] = [
        {"params": [value for value in trainable if value.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [value for value in trainable if value.ndim <= 1], "weight_decay": 0.0},
    ]
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)


def build_schedule(optimizer: torch.optim.Optimizer, settings: ScheduleSettings, steps: float) -> LambdaLR:
    """Build a schedule that is stepped after each update.

    Args:
        optimizer: Its learning rate is scaled.
        settings: Name and warm-up.
        steps: Number of updates in the whole run; infinite where it has no end.

    Raises:
        InputError: The schedule depends on that number, and it is infinite.
    """
    if math.isinf(steps):
        if settings.name != "constant" or settings.warmup > 0:
            raise InputError(
                "model.schedule: warm-up and cosine are shares of the run's length, and this run has no end; give "
                "--trainer.max_epochs or --trainer.max_steps, or --model.schedule.name constant and "
                "--model.schedule.warmup 0"
            )
        return LambdaLR(optimizer, lambda step: 1.0)
    rising = round(settings.warmup * steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        if settings.name == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return LambdaLR(optimizer, factor)
