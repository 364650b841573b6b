"""Keras call: run a Keras layer or operation that has no fused form as its model would; slower, but complete."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

import keras
import torch
from torch import Tensor, nn

from cancernet.model.fused.context import LayerContext


@dataclass(frozen=True)
class _Place:
    """Placeholder for the tensor of this number among the arguments of a call."""

    number: int


class KerasCall(nn.Module):
    """One layer or operation of a Keras graph, run by Keras on the device of its input.

    Trainable variables are parameters; all others, frozen ones included, are buffers; states of seed generators are
    neither. Names are those of the variables, numbered where a nested layer repeats one.

    Args:
        operation: The Keras layer, or an operation of `keras.ops` that a graph holds.
        context: Its inputs in the graph.
        reason: Why it does not run fused.
    """

    def __init__(self, operation: keras.Operation, context: LayerContext, reason: str) -> None:
        super().__init__()
        self.reason = reason
        self.channels_last = context.channels_last
        self._calls: list[tuple[Any, Any]] = []
        self.hold(operation)
        trained = {id(variable) for variable in getattr(operation, "trainable_variables", ())}
        for variable in getattr(operation, "weights", ()):
            stem = re.sub(r"\W", "_", variable.name)
            name = next(name for name in _numbered(stem) if not hasattr(self, name))
            context.adopt(self, name, variable, statistic=id(variable) not in trained)

    @property
    def operation(self) -> keras.Operation:
        """The Keras layer or operation."""
        return self.__dict__["_operation"]

    def hold(self, operation: keras.Operation) -> None:
        """Keep a layer without registering it as a child, which would list its weights a second time."""
        self.__dict__["_operation"] = operation

    def note(self, args: Any, kwargs: Any) -> int:
        """Record the arguments of one call in the graph, tensors left open, and return the number of the record."""
        tensors = count()
        self._calls.append(
            keras.tree.map_structure(
                lambda leaf: _Place(next(tensors)) if isinstance(leaf, keras.KerasTensor) else leaf, (args, kwargs)
            )
        )
        return len(self._calls) - 1

    # Keras' code breaks a compiled graph in many places: make one break around all of it.
    @torch.compiler.disable
    def forward(self, *inputs: Tensor, call: int) -> Tensor | tuple[Tensor, ...]:
        """Run the recorded call of this number; images are (B, C, H, W) on both sides.

        Returns:
            The output, or a tuple where the operation has several.
        """
        given = [self._to_keras(value) for value in inputs]
        args, kwargs = keras.tree.map_structure(
            lambda leaf: given[leaf.number] if isinstance(leaf, _Place) else leaf, self._calls[call]
        )
        if isinstance(self.operation, keras.layers.Layer):
            # Layers that do not take it pass it on to layers inside that do.
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
        """Leave the Keras layer out: the network rebuilds its Keras model and gives the layer back."""
        return {key: value for key, value in self.__dict__.items() if key != "_operation"}


def custom_objects(operations: list[keras.Operation]) -> dict[str, Any]:
    """Return classes and activations of layers that are not Keras' own, by name, as Keras needs to rebuild them."""
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
