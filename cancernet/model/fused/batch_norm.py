"""Batch norm by torch's fused call, with the moving statistics of Keras.

Keras 3 stores the biased variance of a batch in the moving variance, torch the unbiased one (factor n / (n - 1), with n
values per channel). The moving variance enters every prediction, so each update removes the difference.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules._functions import SyncBatchNorm as SyncBatchNormFunction
from torch.nn.modules.batchnorm import _BatchNorm

from cancernet.errors import InputError


class BatchNorm(_BatchNorm):
    """Batch norm over (B, C) or (B, C, H, W). The caller registers parameters and statistics, which belong to Keras.

    Args:
        features: Number of channels.
        epsilon: Added to the variance (Keras' default 1e-3).
        momentum: Weight of the newest batch: 1 - Keras' momentum.
        frozen: Whether the statistics stay fixed in training too, as in a Keras layer that is not trainable.
    """

    momentum: float
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int, epsilon: float, momentum: float, frozen: bool = False) -> None:
        super().__init__(features, epsilon, momentum, affine=False)
        self.register_buffer("num_batches_tracked", None)
        self.frozen = frozen
        self.train()

    def forward(self, input: Tensor) -> Tensor:
        """Normalise per channel; in training by the batch's statistics, which also update the moving ones.

        With v the moving variance, b the batch's biased variance and m torch's momentum, torch leaves
        (1 - m) v + m b n / (n - 1). That times (n - 1) / n, plus (1 - m) v / n, is Keras' (1 - m) v + m b.
        """
        if not self.training:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        count = input.numel() // input.shape[1] * self._processes(input)
        if count == 1:
            return self._normalise_one(input)
        # The fused call saves its arguments for the backward pass: the buffer itself must not be written afterwards.
        variance = self.running_var.clone()
        output = self._normalise_batch(input, variance)
        self.running_var.mul_((1.0 - self.momentum) / count).add_(variance, alpha=(count - 1) / count)
        return output

    def train(self, mode: bool = True) -> "BatchNorm":
        """Switch to training, unless the layer is frozen."""
        super().train(mode and not self.frozen)
        return self

    def _processes(self, input: Tensor) -> int:
        """Return the number of processes that share a batch; each is assumed to hold as many patches as this one."""
        return 1

    def _normalise_batch(self, input: Tensor, variance: Tensor) -> Tensor:
        """Make the fused call, which updates the running mean and the given variance."""
        return F.batch_norm(input, self.running_mean, variance, self.weight, self.bias, True, self.momentum, self.eps)

    def _normalise_one(self, input: Tensor) -> Tensor:
        """Normalise a single value per channel, which torch refuses: it is its own mean, and the variance is 0."""
        with torch.no_grad():
            value = input.reshape(-1, self.num_features).mean(0).to(self.running_mean.dtype)
            self.running_mean.lerp_(value, self.momentum)
            self.running_var.mul_(1.0 - self.momentum)
        output = input - input  # zero, and with it the gradients of the input and of the scale
        shape = (1, -1) + (1,) * (input.dim() - 2)
        if self.weight is not None:
            output = output * self.weight.reshape(shape)
        return output if self.bias is None else output + self.bias.reshape(shape)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Load without torch's batch counter, which is not kept here and which torch's own method would miss."""
        nn.Module._load_from_state_dict(self, state_dict, prefix, *rest)


class SyncedBatchNorm(BatchNorm, nn.SyncBatchNorm):
    """Batch norm over the batches of all processes, on the same parameters and statistics as a `BatchNorm`.

    Args:
        source: The module to replace.
        process_group: The processes that share a batch; None for all.
    """

    def __init__(self, source: BatchNorm, process_group: Any | None = None) -> None:
        BatchNorm.__init__(self, source.num_features, source.eps, source.momentum, source.frozen)
        self.process_group = process_group
        self.affine = source.affine
        self.weight, self.bias = source.weight, source.bias
        self.running_mean, self.running_var = source.running_mean, source.running_var
        self.train(source.training)

    def _processes(self, input: Tensor) -> int:
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return 1
        processes = torch.distributed.get_world_size(self.process_group)
        if processes > 1 and input.device.type == "cpu":
            raise InputError("Batch norm cannot be synchronised between CPU processes: leave sync_batchnorm off")
        return processes

    def _normalise_batch(self, input: Tensor, variance: Tensor) -> Tensor:
        processes = self._processes(input)
        if processes == 1:
            return super()._normalise_batch(input, variance)
        group = self.process_group or torch.distributed.group.WORLD
        return SyncBatchNormFunction.apply(
            input, self.weight, self.bias, self.running_mean, variance, self.eps, self.momentum, group, processes
        )
