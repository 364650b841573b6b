"""Convolutions, with TensorFlow's meaning of the padding "same"."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from cancernet.model.backend import require_torch_backend
from cancernet.model.fused.context import Placement, activation_of
from cancernet.model.fused.window import Window

require_torch_backend()

import keras  # noqa: E402  (the backend must be settled before)


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
        self.window = Window.of(layer)
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
