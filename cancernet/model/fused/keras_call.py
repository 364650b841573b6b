"""A Keras layer or operation without fused execution, called as its model would call it: slower, but it runs."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from cancernet.model.backend import require_torch_backend
from cancernet.model.fused.context import Placement

require_torch_backend()

import keras  # noqa: E402  (the backend must be settled before)


@dataclass(frozen=True)
class _Place:
    """Stands for the tensor of this number among the arguments of a call."""

    number: int


class KerasCall(nn.Module):
    """One layer or operation of a Keras graph, run by Keras on the device of its input.

    Trainable variables are parameters, all others are buffers, frozen ones among them; the states of seed generators
    are neither. Names are the variables' own, numbered where a nested layer repeats one.

    Args:
        operation: The Keras layer, or an operation of `keras.ops` that a graph holds.
        place: Where it stands.
        reason: Why it does not run fused.
    """

    def __init__(self, operation: keras.Operation, place: Placement, reason: str) -> None:
        super().__init__()
        self.reason = reason
        self.channels_last = place.channels_last
        self._calls: list[tuple[Any, Any]] = []
        self.hold(operation)
        trained = {id(variable) for variable in getattr(operation, "trainable_variables", ())}
        for variable in getattr(operation, "weights", ()):
            stem = re.sub(r"\W", "_", variable.name)
            name = next(name for name in _numbered(stem) if not hasattr(self, name))
            place.adopt(self, name, variable, statistic=id(variable) not in trained)

    @property
    def operation(self) -> keras.Operation:
        """The Keras layer or operation."""
        return self.__dict__["_operation"]

    def hold(self, operation: keras.Operation) -> None:
        """Hold on to a layer, which as a torch module would otherwise be registered with its weights a second time."""
        self.__dict__["_operation"] = operation

    def note(self, args: Any, kwargs: Any) -> int:
        """Remember how the graph calls the operation, tensors apart, and return the number of that way."""
        tensors = count()
        self._calls.append(
            keras.tree.map_structure(
                lambda leaf: _Place(next(tensors)) if isinstance(leaf, keras.KerasTensor) else leaf, (args, kwargs)
            )
        )
        return len(self._calls) - 1

    # Keras' own code is full of what breaks a compiled graph: one break around all of it.
    @torch.compiler.disable
    def forward(self, *inputs: Tensor, call: int) -> Tensor | tuple[Tensor, ...]:
        """Compute one call, or all outputs of one; images are (B, C, H, W) on both sides."""
        given = [self._to_keras(value) for value in inputs]
        args, kwargs = keras.tree.map_structure(
            lambda leaf: given[leaf.number] if isinstance(leaf, _Place) else leaf, self._calls[call]
        )
        if isinstance(self.operation, keras.layers.Layer):
            # Layers that do not take it hand it on to layers inside that do.
            kwargs = {**kwargs, "training": self.training}
        with keras.device(str(inputs[0].device)):
            outputs = keras.tree.flatten(self.operation(*args, **kwargs))
        values = tuple(self._from_keras(value) for value in outputs)
        return values[0] if len(values) == 1 else values

    def _to_keras(self, value: Tensor) -> Tensor:
        return value.permute(0, 2, 3, 1) if self.channels_last and value.dim() == 4 else value

    def _from_keras(self, value: Tensor) -> Tensor:
        return value.permute(0, 3, 1, 2) if self.channels_last and value.dim() == 4 else value

    def extra_repr(self) -> str:
        """Return the Keras class, for summaries."""
        return type(self.operation).__name__

    def __getstate__(self) -> dict[str, Any]:
        """Leave the Keras layer out: the network that holds this module rebuilds its Keras model, and gives it back."""
        return {key: value for key, value in self.__dict__.items() if key != "_operation"}


def custom_objects(operations: list[keras.Operation]) -> dict[str, Any]:
    """Return foreign classes and activations of layers, by name: Keras rebuilds only those that it is told of."""
    found: dict[str, Any] = {}
    for operation in operations:
        for item in (type(operation), getattr(operation, "activation", None)):
            name = getattr(item, "__name__", "")  # none where there is no activation, or where it is a layer
            own = getattr(item, "__module__", "").startswith("keras.") or item is getattr(keras.activations, name, None)
            if name and not own:
                found[name] = item
    return found


def _numbered(stem: str) -> Iterator[str]:
    yield stem
    yield from (f"{stem}_{number}" for number in count(1))
