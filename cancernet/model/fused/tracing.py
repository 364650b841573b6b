"""Tracing: walk a built Keras graph once and list its calls in order, with a torch module for each layer."""

from dataclasses import dataclass, field, replace
from typing import Any

import keras
from torch import nn

from cancernet.errors import InputError
from cancernet.model.fused.context import LayerContext, activation_name, unsupported
from cancernet.model.fused.keras_call import KerasCall
from cancernet.model.fused.layers import Dense, build_layer
from cancernet.model.fused.spatial import Convolution


@dataclass(frozen=True)
class Step:
    """One call: the module's name, its options, the slots it reads and fills, and those that it is the last to read."""

    module: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, int] = field(default_factory=dict)
    release: tuple[int, ...] = ()


@dataclass
class Graph:
    """A Keras model as a list of calls. Slot 0 holds the image.

    Attributes:
        image_shape: (C, H, W) of the input; None where any size will do.
        classes: Number of outputs.
        steps: The calls in an order in which each input is ready.
        output: The slot of the logits.
        output_activation: Activation that was left out at the end: "softmax", "sigmoid" or "linear".
        modules: The torch module of each layer, by its name.
        variables: Dotted name of a parameter or buffer -> the Keras variable on the same memory.
    """

    image_shape: tuple[int | None, ...]
    classes: int
    steps: list[Step] = field(default_factory=list)
    output: int = 0
    output_activation: str = "linear"
    modules: dict[str, nn.Module] = field(default_factory=dict)
    variables: dict[str, keras.Variable] = field(default_factory=dict)


def trace(model: keras.Model) -> Graph:
    """Trace a functional or Sequential model, with its branches, shared layers and nested models.

    Raises:
        InputError: The model is not of this kind, has several inputs or outputs, or does not end as a classifier.
    """
    functional = _functional(model)
    shapes = [tensor.shape for tensor in (*functional.inputs, *functional.outputs)]
    if [len(shape) for shape in shapes] != [4, 2]:
        raise InputError(
            f"Model {model.name!r} must map one image (batch, height, width, channels) to one vector (batch, classes). "
            f"Received the shapes {shapes}"
        )
    walk = _Walk(channels_last=_channels_last(functional))
    (output,) = walk.follow(functional, (0,), prefix="")
    image = shapes[0][1:]
    graph = Graph(
        image_shape=(image[2], image[0], image[1]) if walk.channels_last else tuple(image),
        classes=shapes[1][1],
        steps=walk.steps,
        output=output,
        modules=walk.modules,
        variables=walk.variables,
    )
    _leave_out_probability(graph, walk.layers)
    graph.steps = _with_releases(graph.steps, graph.output)
    return graph


def last_layer(model: keras.Model) -> keras.layers.Layer:
    """Return the layer that gives the output of a model, also where it lies in a nested model."""
    (node,) = _functional(model)._nodes_by_depth[0]
    return last_layer(node.operation) if isinstance(node.operation, keras.Model) else node.operation


@dataclass
class _Walk:
    channels_last: bool
    steps: list[Step] = field(default_factory=list)
    modules: dict[str, nn.Module] = field(default_factory=dict)
    layers: dict[str, keras.Operation] = field(default_factory=dict)
    variables: dict[str, keras.Variable] = field(default_factory=dict)
    slots: int = 1

    def follow(self, functional: keras.Model, inputs: tuple[int, ...], prefix: str) -> tuple[int, ...]:
        """Add the calls of a graph whose inputs are in the given slots, and return the slots of its outputs."""
        places = {id(tensor): slot for tensor, slot in zip(functional.inputs, inputs, strict=True)}
        for depth in sorted(functional._nodes_by_depth, reverse=True):
            for node in functional._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                read = tuple(places[id(tensor)] for tensor in node.input_tensors)
                filled = self._call(node, read, prefix)
                places |= {id(tensor): slot for tensor, slot in zip(node.outputs, filled, strict=True)}
        return tuple(places[id(tensor)] for tensor in functional.outputs)

    def _call(self, node: Any, read: tuple[int, ...], prefix: str) -> tuple[int, ...]:
        layer = node.operation
        # Keras records training=False in Sequential graphs; a call of the model with `training` overrules it.
        kwargs = {k: v for k, v in node.arguments.kwargs.items() if k != "training" and v is not None}
        tensors = all(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(node.arguments.args))
        special = None if tensors and not kwargs and len(node.outputs) == 1 else "is called with more than tensors"
        if isinstance(layer, keras.Model) and special is None and _graph(layer) is not None:
            return self.follow(_functional(layer), read, f"{prefix}{layer.name}_")
        name = self._name(layer, prefix)
        if name not in self.modules:
            context = LayerContext([tuple(tensor.shape) for tensor in node.input_tensors], self.channels_last)
            self.modules[name] = build_layer(layer, context, special)
            self.layers[name] = layer
            self.variables |= {f"{name}.{key}": variable for key, variable in context.variables.items()}
        module = self.modules[name]
        if special and not isinstance(module, KerasCall):
            raise unsupported(layer, f"{special} in one place and with tensors alone in another; use two layers")
        options = {"call": module.note(node.arguments.args, kwargs)} if isinstance(module, KerasCall) else {}
        outputs = tuple(range(self.slots, self.slots + len(node.outputs)))
        self.slots += len(outputs)
        self.steps.append(Step(name, read, outputs, options))
        return outputs

    def _name(self, layer: keras.Operation, prefix: str) -> str:
        name = f"{prefix}{layer.name}"
        if "." in name or hasattr(nn.Module(), name) or self.layers.get(name, layer) is not layer:
            raise InputError(f"Layer name {name!r} cannot name a torch module: give the Keras layer another name")
        return name


def _graph(model: keras.Model) -> keras.Model | None:
    """Return the functional graph of a model: inside a Sequential one, None for a subclass of Model."""
    graph = getattr(model, "_functional", None) if isinstance(model, keras.Sequential) else model
    return graph if isinstance(graph, keras.Model) and hasattr(graph, "_nodes_by_depth") else None


def _functional(model: keras.Model) -> keras.Model:
    """Return the functional graph of a model.

    Raises:
        InputError: It has none.
    """
    graph = _graph(model)
    if graph is None:
        raise InputError(
            f"Model {getattr(model, 'name', model)!r} has no graph to trace: build a functional or Sequential Keras "
            "model with its input shape given"
        )
    return graph


def _channels_last(functional: keras.Model) -> bool:
    """Return whether the layers of a model are channels-last; Keras' present setting where none has a format."""
    formats = {str(f) for layer in functional._flatten_layers() if (f := getattr(layer, "data_format", None))}
    if len(formats) > 1:
        raise InputError(f"Model {functional.name!r} mixes data formats: {sorted(formats)}. Build it in one of them")
    return (formats or {keras.config.image_data_format()}) == {"channels_last"}


def _leave_out_probability(graph: Graph, layers: dict[str, keras.Operation]) -> None:
    """Remove the softmax or sigmoid at the end: a separate layer, or the activation of the last dense layer."""
    last = graph.steps[-1]
    layer, module = layers[last.module], graph.modules[last.module]
    activation = activation_name(layer)
    # The output of an operation or an unknown layer may be probabilities or logits.
    clear = not isinstance(module, KerasCall) or (hasattr(layer, "activation") and activation == "linear")
    if last.outputs != (graph.output,) or activation not in ("linear", "softmax", "sigmoid") or not clear:
        raise unsupported(layer, "the last layer must be linear, a softmax or a sigmoid; end with layers.Activation")
    graph.output_activation = activation
    if isinstance(layer, keras.layers.Activation | keras.layers.Softmax):
        graph.steps.pop()
        graph.output = last.inputs[0]
        del graph.modules[last.module]
    elif isinstance(module, Dense | Convolution):
        module.activation = None


def _with_releases(steps: list[Step], output: int) -> list[Step]:
    """Record at each call the slots that no later call reads, so that their memory is freed as early as possible."""
    last_reader = {slot: i for i, step in enumerate(steps) for slot in step.inputs}
    return [
        replace(step, release=tuple({slot for slot in step.inputs if last_reader[slot] == i and slot != output}))
        for i, step in enumerate(steps)
    ]
