"""The window that a convolution or a pooling moves over an image."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from cancernet.model.backend import require_torch_backend
from cancernet.model.fused.context import unsupported

require_torch_backend()

import keras  # noqa: E402  (the backend must be settled before)


@dataclass(frozen=True)
class Window:
    """Kernel size, strides, dilation and padding ("same" or "valid", as TensorFlow defines them), each (y, x)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    same: bool

    @classmethod
    def of(cls, layer: keras.layers.Layer) -> "Window":
        """Read the window of a layer."""
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
        """Pad as TensorFlow does with strides: the smaller half above and left."""
        amounts: list[int] = []
        for size, k, s, d in zip(x.shape[-2:], self.kernel, self.strides, self.dilation, strict=True):
            total = max((-(-size // s) - 1) * s + d * (k - 1) + 1 - size, 0)
            amounts = [total // 2, total - total // 2, *amounts]  # F.pad takes the last dimension first
        return F.pad(x, amounts, value=value)
