"""Optimisers and learning-rate schedules."""

import math
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from cancernet.errors import InputError

OptimizerName = Literal["adagrad", "adamw", "sgd"]
ScheduleName = Literal["constant", "cosine"]


def build_optimizer(
    network: nn.Module,
    name: OptimizerName,
    learning_rate: float,
    weight_decay: float,
    momentum: float,
    learning_rate_decay: float,
    initial_accumulator: float,
) -> torch.optim.Optimizer:
    """Build an optimiser over the trainable parameters.

    `adagrad` is the rule of Keras 2.2.4 (2019): the step is lr_t g / (sqrt(sum g^2) + 1e-7) with lr_t = learning_rate /
    (1 + learning_rate_decay t); `initial_accumulator=0.1` makes it tf.keras 2's (2020).

    Args:
        network: Holds the parameters.
        name: `adagrad`, `adamw` or `sgd` (with Nesterov momentum).
        learning_rate: Peak learning rate, above 0.
        weight_decay: For `adamw` and `sgd`; on kernels only, never on biases and batch norm.
        momentum: For `sgd`.
        learning_rate_decay: For `adagrad`, per update.
        initial_accumulator: For `adagrad`: where the sums of squares start.

    Raises:
        InputError: A learning rate that is not above 0.
    """
    if not learning_rate > 0:
        raise InputError(f"model.learning_rate: expected a number above 0, got {learning_rate}")
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if name == "adagrad":
        return torch.optim.Adagrad(
            trainable,
            lr=learning_rate,
            lr_decay=learning_rate_decay,
            eps=1e-7,
            initial_accumulator_value=initial_accumulator,
        )
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in trainable if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    if name == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate)
    return torch.optim.SGD(groups, lr=learning_rate, momentum=momentum, nesterov=momentum > 0)


def build_schedule(optimizer: torch.optim.Optimizer, name: ScheduleName, warmup: float, steps: int) -> LambdaLR:
    """Build a schedule that is stepped after each update.

    Args:
        optimizer: Whose learning rate is scaled.
        name: `constant`, or `cosine` down to 0 at the last update.
        warmup: Share of all updates, 0 to 1, in which the rate first rises linearly.
        steps: Number of updates in the whole run.

    Raises:
        InputError: A warm-up outside [0, 1).
    """
    if not 0 <= warmup < 1:
        raise InputError(f"model.warmup: expected a share of the run from 0 to below 1, got {warmup}")
    rising = round(warmup * steps)

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        if name == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return LambdaLR(optimizer, factor)
