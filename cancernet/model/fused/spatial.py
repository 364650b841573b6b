"""Convolution and pooling, with TensorFlow's meaning of the padding "same"."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cancernet.model.fused.context import Function, LayerContext, activation_of, unsupported


@dataclass(frozen=True)
class Window:
    """Kernel size, strides, dilation, each (y, x), and whether the padding is "same" or "valid"."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    same: bool

    @classmethod
    def of(cls, layer: keras.layers.Layer) -> "Window":
        """Read the window of a Keras layer."""
        pooling = hasattr(layer, "pool_size")
        if layer.padding not in ("same", "valid"):
            raise unsupported(layer, f"padding {layer.padding!r}; supported: same, valid")
        return cls(
            kernel=tuple(layer.pool_size if pooling else layer.kernel_size),
            strides=tuple(layer.strides),
            dilation=(1, 1) if pooling else tuple(layer.dilation_rate),
            same=layer.padding == "same",
        )

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
        """Pad (B, C, H, W) as TensorFlow does with strides: the smaller half above and left.

        Examples:
            >>> Window(kernel=(3, 3), strides=(2, 2), dilation=(1, 1), same=True).pad(torch.ones(1, 1, 1, 4)).shape
            torch.Size([1, 1, 3, 5])
        """
        amounts: list[int] = []
        for size, k, s, d in zip(x.shape[-2:], self.kernel, self.strides, self.dilation, strict=True):
            total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            amounts = [total // 2, total - total // 2, *amounts]  # F.pad takes the last dimension first
        return F.pad(x, amounts, value=value)


class Convolution(nn.Module):
    """A full, depthwise, or separable (depthwise, then pointwise) convolution, with bias and activation.

    Kernels keep Keras' order, (kh, kw, in, out). The fused call needs (out, in, kh, kw), contiguous: on the permuted
    view alone, compiled code falls back to a kernel four times slower.
    """

    kernel: Tensor
    depthwise_kernel: Tensor
    pointwise_kernel: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: keras.layers.Layer, context: LayerContext) -> None:
        super().__init__()
        self.window = Window.of(layer)
        self.groups: int = getattr(layer, "groups", 1)
        self.activation = activation_of(layer, context)
        separable = isinstance(layer, keras.layers.SeparableConv2D)
        self.depthwise = separable or isinstance(layer, keras.layers.DepthwiseConv2D)
        if separable:
            context.adopt(self, "depthwise_kernel", layer.depthwise_kernel)
            context.adopt(self, "pointwise_kernel", layer.pointwise_kernel)
        elif self.depthwise:
            context.adopt(self, "depthwise_kernel", layer.kernel)
            context.adopt(self, "pointwise_kernel", None)
        else:
            context.adopt(self, "kernel", layer.kernel)
        context.adopt(self, "bias", layer.bias if layer.use_bias else None)

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


def pooling(layer: keras.layers.Layer, context: LayerContext) -> nn.Module:
    """Build maximum or average pooling."""
    window = Window.of(layer)
    average = isinstance(layer, keras.layers.AveragePooling2D)
    if not window.same:
        if not average and window.kernel == window.strides == (2, 2):
            return HalvingMaxPool()
        return (nn.AvgPool2d if average else nn.MaxPool2d)(window.kernel, window.strides)
    if average:
        raise unsupported(layer, 'padding "same", whose border Keras leaves out of the average; supported: valid')
    return Function(partial(_max_pool_same, window=window), type(layer).__name__)


def _max_pool_same(x: Tensor, window: Window) -> Tensor:
    return F.max_pool2d(window.pad(x, value=-torch.inf), window.kernel, window.strides)


def global_pooling(layer: keras.layers.Layer, context: LayerContext) -> nn.Module:
    """Build the maximum or the average over all pixels."""
    pool = torch.mean if isinstance(layer, keras.layers.GlobalAveragePooling2D) else torch.amax
    return Function(partial(pool, dim=(2, 3), keepdim=layer.keepdims), type(layer).__name__)


class HalvingMaxPool(nn.MaxPool2d):
    """Maximum pooling of 2 by 2 pixels, in a form that compiles into vector instructions on the CPU.

    torch's own pooling records the positions of the maxima. Compiled code writes these one by one, and likewise all
    that is fused with them, which made a compiled step in bfloat16 slower than an uncompiled one. Uncompiled, and on
    other devices, torch's own pooling runs.

    Examples:
        >>> HalvingMaxPool()(torch.arange(16.0).view(1, 1, 4, 4)).flatten()
        tensor([ 5.,  7., 13., 15.])
    """

    def __init__(self) -> None:
        super().__init__(kernel_size=2)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H // 2, W // 2); an odd last row or column is left out."""
        if torch.compiler.is_compiling() and input.device.type == "cpu":
            return _HalvingMaximum.apply(input)
        return super().forward(input)


class _HalvingMaximum(torch.autograd.Function):
    """Maximum of four strided views. As in torch, the gradient goes to the first of them that holds the maximum."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        a, b, c, d = _corners(x)
        y = torch.maximum(torch.maximum(a, b), torch.maximum(c, d))
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        x, y = ctx.saved_tensors
        a, b, c, _ = (corner == y for corner in _corners(x))
        first = (a, b & ~a, c & ~(a | b), ~(a | b | c))
        # Channels stay innermost, so that whole vectors of them are written.
        upper_left, upper_right, lower_left, lower_right = (
            torch.where(here, gradient, 0).permute(0, 2, 3, 1) for here in first
        )
        upper = torch.stack([upper_left, upper_right], 3)
        lower = torch.stack([lower_left, lower_right], 3)
        batch, channels, height, width = y.shape
        spread = torch.stack([upper, lower], 2).reshape(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
        return F.pad(spread, (0, x.shape[3] - 2 * width, 0, x.shape[2] - 2 * height))


def _corners(x: Tensor) -> list[Tensor]:
    """Return the upper left, upper right, lower left and lower right values of all squares, as views."""
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    return [x[:, :, row:height:2, column:width:2] for row in (0, 1) for column in (0, 1)]
