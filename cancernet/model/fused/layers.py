"""One torch module for each Keras layer, on the Keras layer's own variables.

Images are (B, C, H, W) here, in torch's channels-last memory format, for both data formats of Keras.
`BUILDERS` maps a Keras layer class to the function that builds its fused module: a further layer needs one entry. A
layer without one, or with an option that its builder refuses, becomes a Keras call.
"""

from collections.abc import Callable
from functools import partial, reduce

import keras
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cancernet.errors import InputError
from cancernet.model.fused.batch_norm import BatchNorm
from cancernet.model.fused.context import Function, LayerContext, activation_name, activation_of, unsupported
from cancernet.model.fused.keras_call import KerasCall
from cancernet.model.fused.spatial import Convolution, global_pooling, pooling

BYTE_VALUES = 256
"""Values of a random byte: a dropout rate that is a multiple of 1/256, as 0.25 and 0.5 are, is met exactly."""


class Dense(nn.Module):
    """A dense layer over (B, features)."""

    kernel: Tensor
    bias: Tensor | None

    def __init__(self, layer: keras.layers.Layer, context: LayerContext) -> None:
        super().__init__()
        if context.rank != 2:
            raise unsupported(layer, f"input of shape {context.shapes[0]}; flatten it to (batch, features) first")
        self.activation = activation_of(layer, context)
        context.adopt(self, "kernel", layer.kernel)
        context.adopt(self, "bias", layer.bias if layer.use_bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in) to (B, units)."""
        x = F.linear(x, self.kernel.t(), self.bias)
        return x if self.activation is None else self.activation(x)


class Dropout(nn.Dropout):
    """Dropout that takes eight values from each random number on the CPU, from torch's own generator.

    torch draws 53 random bits for each value, in one thread, which is a quarter of a training step of CancerNet in
    bfloat16. One byte suffices where the rate is a multiple of 1/256; torch does all other cases.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Set values to zero with probability `p` in training and scale up the rest."""
        dropped = self.p * BYTE_VALUES
        if not self.training or input.device.type != "cpu" or dropped not in range(1, BYTE_VALUES):
            return F.dropout(input, self.p, self.training)
        keep = _random_bytes(input) >= int(dropped)
        return input * keep.to(input.dtype).mul_(1 / (1 - self.p))


def _random_bytes(like: Tensor) -> Tensor:
    """Draw a uniform byte for each value of a tensor, in its memory order where that is channels-last."""
    image = like.dim() == 4
    shape = like.permute(0, 2, 3, 1).shape if image else like.shape
    words = torch.randint(-(2**63), 2**63 - 1, (like.numel() // 8 + 1,))
    random = words.view(torch.uint8)[: like.numel()].view(shape)
    return random.permute(0, 3, 1, 2) if image else random


def _batch_norm(layer: keras.layers.Layer, context: LayerContext) -> nn.Module:
    axis = layer.axis if isinstance(layer.axis, int) else layer.axis[0]
    if context.dimension(axis) != 1:
        raise unsupported(layer, f"axis {axis} is not the channels")
    if getattr(layer, "renorm", False):
        raise unsupported(layer, "batch renormalisation")
    norm = BatchNorm(layer.moving_mean.shape[0], layer.epsilon, 1.0 - layer.momentum, frozen=not layer.trainable)
    context.adopt(norm, "weight", layer.gamma if layer.scale else None)
    context.adopt(norm, "bias", layer.beta if layer.center else None)
    context.adopt(norm, "running_mean", layer.moving_mean, statistic=True)
    context.adopt(norm, "running_var", layer.moving_variance, statistic=True)
    norm.affine = layer.scale and layer.center
    return norm


def _flatten(layer: keras.layers.Layer, context: LayerContext) -> nn.Module:
    """Flatten in Keras' order, which is channels fastest in both data formats."""
    image = context.rank == 4 and (context.channels_last or layer.data_format == "channels_first")
    return Function(_flatten_channels_last if image else partial(torch.flatten, start_dim=1), type(layer).__name__)


def _flatten_channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1)  # a view, where memory is channels-last


def _activate(layer: keras.layers.Layer, context: LayerContext) -> nn.Module:
    function = activation_of(layer, context)
    return nn.Identity() if function is None else Function(function, activation_name(layer))


def _rectify(layer: keras.layers.Layer, context: LayerContext) -> nn.Module:
    slope = layer.negative_slope
    if isinstance(layer, keras.layers.LeakyReLU):
        return nn.LeakyReLU(slope)
    if layer.threshold or (slope and layer.max_value is not None):
        raise unsupported(layer, "threshold, or negative slope with a maximum; supported: one of slope and maximum")
    if layer.max_value is not None:
        return nn.Hardtanh(0.0, float(layer.max_value))
    return nn.LeakyReLU(slope) if slope else nn.ReLU()


def _merge(layer: keras.layers.Layer, context: LayerContext) -> nn.Module:
    if len({len(shape) for shape in context.shapes}) > 1:
        raise unsupported(layer, f"inputs of different rank {context.shapes}")
    return Function({keras.layers.Add: _sum, keras.layers.Multiply: _product}[type(layer)], type(layer).__name__)


def _sum(*inputs: Tensor) -> Tensor:
    return reduce(torch.add, inputs)


def _product(*inputs: Tensor) -> Tensor:
    return reduce(torch.mul, inputs)


def _concatenate(layer: keras.layers.Layer, context: LayerContext) -> nn.Module:
    return Function(partial(_join, dim=context.dimension(layer.axis)), type(layer).__name__)


def _join(*inputs: Tensor, dim: int) -> Tensor:
    return torch.cat(inputs, dim)


def _zero_padding(layer: keras.layers.Layer, context: LayerContext) -> nn.Module:
    (top, bottom), (left, right) = layer.padding
    return nn.ZeroPad2d((left, right, top, bottom))


def _dropout(layer: keras.layers.Layer, context: LayerContext) -> nn.Module:
    if getattr(layer, "noise_shape", None) is not None:
        raise unsupported(layer, "noise_shape")
    return Dropout(layer.rate)


def _rescaling(layer: keras.layers.Layer, context: LayerContext) -> nn.Module:
    if not isinstance(layer.scale, int | float) or not isinstance(layer.offset, int | float):
        raise unsupported(layer, "a scale or an offset per channel; supported: one number each")
    return Function(partial(_scale, factor=layer.scale, offset=layer.offset), type(layer).__name__)


def _scale(x: Tensor, factor: float, offset: float) -> Tensor:
    return x * factor + offset


Builder = Callable[[keras.layers.Layer, LayerContext], nn.Module]

BUILDERS: dict[type, Builder] = {
    keras.layers.Activation: _activate,
    keras.layers.Add: _merge,
    keras.layers.AveragePooling2D: pooling,
    keras.layers.BatchNormalization: _batch_norm,
    keras.layers.Concatenate: _concatenate,
    keras.layers.Conv2D: Convolution,
    keras.layers.Dense: Dense,
    keras.layers.DepthwiseConv2D: Convolution,
    keras.layers.Dropout: _dropout,
    keras.layers.Flatten: _flatten,
    keras.layers.GlobalAveragePooling2D: global_pooling,
    keras.layers.GlobalMaxPooling2D: global_pooling,
    keras.layers.LeakyReLU: _rectify,
    keras.layers.MaxPooling2D: pooling,
    keras.layers.Multiply: _merge,
    keras.layers.ReLU: _rectify,
    keras.layers.Rescaling: _rescaling,
    keras.layers.SeparableConv2D: Convolution,
    keras.layers.Softmax: _activate,
    keras.layers.ZeroPadding2D: _zero_padding,
}
"""Keras layer class -> function that builds its torch module. Exact classes: a subclass may compute something else."""


def build_layer(layer: keras.Operation, context: LayerContext, special: str | None = None) -> nn.Module:
    """Build the torch module of a Keras layer or operation: fused where possible, otherwise a Keras call.

    Args:
        layer: The layer.
        context: Its inputs in the graph.
        special: What about its call no fused form provides for; None where the call is an ordinary one.
    """
    builder = BUILDERS.get(type(layer))
    try:
        if builder is None or special is not None:
            raise unsupported(layer, "has no fused form" if builder is None else str(special))
        return builder(layer, context)
    except InputError as error:
        context.variables.clear()
        return KerasCall(layer, context, str(error))
