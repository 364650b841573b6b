"""The context of a Keras layer: input shapes, data format, variables that were taken over, activation."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import keras
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cancernet.errors import InputError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "elu": F.elu,
    "gelu": F.gelu,
    "hard_sigmoid": F.hardsigmoid,
    "hard_silu": F.hardswish,
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.2),  # Keras' default slope; torch's is 0.01
    "mish": F.mish,
    "relu": F.relu,
    "relu6": F.relu6,
    "selu": F.selu,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "softplus": F.softplus,
    "tanh": torch.tanh,
}
"""Elementwise activations by Keras' name; `activation_of` handles "linear" and "softmax"."""


@dataclass
class LayerContext:
    """Inputs of a layer in the graph, and the variables that its torch module has taken over.

    Attributes:
        shapes: Keras shapes of the inputs, with the batch dimension.
        channels_last: Whether these shapes are (B, H, W, C).
        variables: Name of the module's parameter or buffer -> Keras variable; filled by `adopt`.
    """

    shapes: list[tuple[int | None, ...]]
    channels_last: bool
    variables: dict[str, keras.Variable] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """Number of dimensions of the first input, batch included."""
        return len(self.shapes[0])

    def dimension(self, axis: int) -> int:
        """Translate an axis of the Keras tensor into the dimension of the torch tensor.

        Examples:
            >>> LayerContext([(None, 50, 50, 3)], channels_last=True).dimension(-1)
            1
        """
        axis %= self.rank
        return (0, 2, 3, 1)[axis] if self.rank == 4 and self.channels_last else axis

    def adopt(self, module: nn.Module, name: str, variable: keras.Variable | None, statistic: bool = False) -> None:
        """Register a Keras variable in a module: as the parameter itself, or as a buffer on the same memory."""
        if variable is None:
            module.register_parameter(name, None)
            return
        value: nn.Parameter = variable.value
        value.data = value.data.cpu()  # Keras built on its default device; the trainer moves it
        if statistic:
            module.register_buffer(name, value.data)
        else:
            module.register_parameter(name, value)
        self.variables[name] = variable


def activation_name(layer: keras.layers.Layer) -> str:
    """Return the name of a layer's activation, "linear" where it has none."""
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    activation = getattr(layer, "activation", None)
    return "linear" if activation is None else getattr(activation, "__name__", type(activation).__name__)


def activation_of(layer: keras.layers.Layer, context: LayerContext) -> Callable[[Tensor], Tensor] | None:
    """Return the torch function of a layer's activation, None where it has none."""
    name = activation_name(layer)
    if name == "linear":
        return None
    axis = getattr(layer, "axis", -1)
    if name == "softmax" and isinstance(axis, int):
        return partial(torch.softmax, dim=context.dimension(axis))
    # A user's function may have the name of one of Keras'.
    if name not in ACTIVATIONS or layer.activation is not getattr(keras.activations, name):
        raise unsupported(layer, f"activation {name!r}; supported: linear, softmax, {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[name]


def unsupported(layer: keras.layers.Layer, what: str) -> InputError:
    """Return the error for a layer that cannot run fused."""
    return InputError(f"Layer {layer.name!r} ({type(layer).__name__}): {what}")


class Function(nn.Module):
    """A layer without variables: one function of its inputs."""

    def __init__(self, function: Callable[..., Tensor], label: str) -> None:
        super().__init__()
        self.function = function
        self.label = label

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return the function of the inputs."""
        return self.function(*inputs)

    def extra_repr(self) -> str:
        """Return the Keras class, for summaries."""
        return self.label
