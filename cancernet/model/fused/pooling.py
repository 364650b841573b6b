"""Maximum and average pooling, with TensorFlow's meaning of the padding "same"."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cancernet.model.backend import require_torch_backend
from cancernet.model.fused.context import Function, Placement, unsupported
from cancernet.model.fused.window import Window

require_torch_backend()

import keras  # noqa: E402  (the backend must be settled before)


def pooling(layer: keras.layers.Layer, place: Placement) -> nn.Module:
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


def global_pooling(layer: keras.layers.Layer, place: Placement) -> nn.Module:
    """Build the maximum or the average over all pixels."""
    pool = torch.mean if isinstance(layer, keras.layers.GlobalAveragePooling2D) else torch.amax
    return Function(partial(pool, dim=(2, 3), keepdim=layer.keepdims), type(layer).__name__)


class HalvingMaxPool(nn.MaxPool2d):
    """The maximum of squares of 2 by 2, in a form that compiles into vector instructions on the CPU.

    torch.compile writes the positions that torch's own pooling notes one by one, and everything it fuses with them
    likewise: that is why compiling a step in bfloat16 was slower than not to. Uncompiled, and on other devices, torch's
    own is taken.
    """

    def __init__(self) -> None:
        super().__init__(kernel_size=2)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H // 2, W // 2); an odd last row or column is left out."""
        if torch.compiler.is_compiling() and input.device.type == "cpu":
            return _HalvingMaximum.apply(input)
        return super().forward(input)


class _HalvingMaximum(torch.autograd.Function):
    """The maximum of four strided views; the gradient goes to the first of them that holds it, as torch has it."""

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
