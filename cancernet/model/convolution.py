"""Convolutions and pooling, with TensorFlow's meaning of the padding "same"."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cancernet.model.backend import require_torch_backend
from cancernet.model.placement import Function, Placement, activation_of, unsupported

require_torch_backend()

import keras  # noqa: E402  (the backend must be settled before)


@dataclass(frozen=True)
class Window:
    """Kernel size, strides, dilation and padding ("same" or "valid", as TensorFlow defines them), each (y, x)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    same: bool

    @property
    def symmetric(self) -> tuple[int, int] | None:
        """Padding per side that the fused call can do by itself; None where the two sides differ."""
        if not self.same:
            return (0, 0)
        extent = [d * (k - 1) for k, d in zip(self.kernel, self.dilation, strict=True)]
        if self.strides == (1, 1) and all(e % 2 == 0 for e in extent):
            return (extent[0] // 2, extent[1] // 2)
        return None

    def pad(self, x: Tensor, value: float = 0.0) -> Tensor:
        """Pad as TensorFlow does with strides: the smaller half above and left."""
        amounts: list[int] = []
        for size, k, s, d in zip(x.shape[-2:], self.kernel, self.strides, self.dilation, strict=True):
            total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            amounts = [total // 2, total - total // 2, *amounts]  # F.pad takes the last dimension first
        return F.pad(x, amounts, value=value)


def _window(layer: keras.layers.Layer) -> Window:
    pooling = hasattr(layer, "pool_size")
    if layer.padding not in ("same", "valid"):
        raise unsupported(layer, f"padding {layer.padding!r}; supported: same, valid")
    return Window(
        kernel=tuple(layer.pool_size if pooling else layer.kernel_size),
        strides=tuple(layer.strides),
        dilation=(1, 1) if pooling else tuple(layer.dilation_rate),
        same=layer.padding == "same",
    )


class Convolution(nn.Module):
    """A depthwise, a pointwise or full, or a separable convolution (both), with bias and activation.

    Kernels keep Keras' order, (kh, kw, in, out); the fused call needs (out, in, kh, kw), contiguous: on the permuted
    view alone, compiled code falls back to a kernel four times slower.
    """

    kernel: Tensor
    depthwise_kernel: Tensor
    pointwise_kernel: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: keras.layers.Layer, place: Placement) -> None:
        super().__init__()
        self.window = _window(layer)
        self.groups: int = getattr(layer, "groups", 1)
        self.activation = activation_of(layer, place)
        separable = isinstance(layer, keras.layers.SeparableConv2D)
        self.depthwise = separable or isinstance(layer, keras.layers.DepthwiseConv2D)
        if separable:
            place.adopt(self, "depthwise_kernel", layer.depthwise_kernel)
            place.adopt(self, "pointwise_kernel", layer.pointwise_kernel)
        elif self.depthwise:
            place.adopt(self, "depthwise_kernel", layer.kernel)
            place.adopt(self, "pointwise_kernel", None)
        else:
            place.adopt(self, "kernel", layer.kernel)
        place.adopt(self, "bias", layer.bias if layer.use_bias else None)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, filters, H', W')."""
        padding = self.window.symmetric
        if padding is None:
            x, padding = self.window.pad(x), (0, 0)
        where: dict[str, Any] = {"stride": self.window.strides, "padding": padding, "dilation": self.window.dilation}
        if not self.depthwise:
            x = F.conv2d(x, self.kernel.permute(3, 2, 0, 1).contiguous(), self.bias, groups=self.groups, **where)
            return x if self.activation is None else self.activation(x)
        kernel = self.depthwise_kernel.permute(2, 3, 0, 1).contiguous()
        bias = self.bias if self.pointwise_kernel is None else None
        x = F.conv2d(x, kernel.view(-1, 1, *self.window.kernel), bias, groups=kernel.shape[0], **where)
        if self.pointwise_kernel is not None:
            x = F.conv2d(x, self.pointwise_kernel.permute(3, 2, 0, 1).contiguous(), self.bias)
        return x if self.activation is None else self.activation(x)


def pooling(layer: keras.layers.Layer, place: Placement) -> nn.Module:
    """Build maximum or average pooling."""
    window = _window(layer)
    average = isinstance(layer, keras.layers.AveragePooling2D)
    if not window.same:
        return (nn.AvgPool2d if average else nn.MaxPool2d)(window.kernel, window.strides)
    if average:
        raise unsupported(layer, 'padding "same", whose border Keras leaves out of the average; supported: valid')
    return Function(partial(_max_pool_same, window=window), type(layer).__name__)


def _max_pool_same(x: Tensor, window: Window) -> Tensor:
    return F.max_pool2d(window.pad(x, value=-torch.inf), window.kernel, window.strides)


def global_pooling(layer: keras.layers.Layer, place: Placement) -> nn.Module:
    """Build the maximum or the average over all pixels."""
    pool = torch.mean if isinstance(layer, keras.layers.GlobalAveragePooling2D) else torch.amax
    return Function(partial(pool, dim=(2, 3), keepdim=layer.keepdims), type(layer).__name__)
