"""Walk a built Keras graph once and list the calls, in order, with a torch module for each layer."""

from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from cancernet.errors import InputError
from cancernet.model.backend import require_torch_backend
from cancernet.model.convolution import Convolution
from cancernet.model.layers import Dense, build_layer
from cancernet.model.placement import Placement, activation_name, unsupported

require_torch_backend()

import keras  # noqa: E402  (the backend must be settled before)


@dataclass(frozen=True)
class Step:
    """One call: the module's name, the slots it reads, the slot it fills, and those that no later call reads."""

    module: str
    inputs: tuple[int, ...]
    output: int
    release: tuple[int, ...] = ()


@dataclass
class Graph:
    """A Keras model as a list of calls. Slot 0 holds the image.

    Attributes:
        image_shape: (C, H, W) of the input; None where any size will do.
        classes: Number of outputs.
        steps: The calls in an order that works.
        output: The slot that holds the logits at the end.
        output_activation: What was left out at the end: "softmax", "sigmoid" or "linear".
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
    """Walk a functional or Sequential model. Branches, shared layers and models inside models are followed.

    Raises:
        InputError: The model is not of this kind, has several inputs or outputs, or a layer that cannot run fused.
    """
    functional = _functional(model)
    shapes = [tensor.shape for tensor in (*functional.inputs, *functional.outputs)]
    if [len(shape) for shape in shapes] != [4, 2]:
        raise InputError(
            f"Model {model.name!r} must map one image (batch, height, width, channels) to one vector (batch, classes). "
            f"Received the shapes {shapes}"
        )
    walk = _Walk(channels_last=_channels_last(functional))
    output = walk.follow(functional, (0,), prefix="")
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


@dataclass
class _Walk:
    channels_last: bool
    steps: list[Step] = field(default_factory=list)
    modules: dict[str, nn.Module] = field(default_factory=dict)
    layers: dict[str, keras.layers.Layer] = field(default_factory=dict)
    variables: dict[str, keras.Variable] = field(default_factory=dict)
    slots: int = 1

    def follow(self, functional: keras.Model, inputs: tuple[int, ...], prefix: str) -> int:
        """Add the calls of a graph whose inputs stand in the given slots, and return the slot of its output."""
        places = {id(tensor): slot for tensor, slot in zip(functional.inputs, inputs, strict=True)}
        for depth in sorted(functional._nodes_by_depth, reverse=True):
            for node in functional._nodes_by_depth[depth]:
                if node.is_input:
                    continue
                read = tuple(places[id(tensor)] for tensor in node.input_tensors)
                places[id(node.outputs[0])] = self._call(node, read, prefix)
        return places[id(functional.outputs[0])]

    def _call(self, node: Any, read: tuple[int, ...], prefix: str) -> int:
        layer = node.operation
        # Keras notes training=False in its Sequential graphs; a call of the model with `training` overrules it.
        options = {k: v for k, v in node.arguments.kwargs.items() if k != "training" and v is not None}
        if options or len(node.outputs) != 1:
            raise unsupported(layer, f"called with {options} and {len(node.outputs)} outputs; supported: tensors, one")
        if isinstance(layer, keras.Model):
            return self.follow(_functional(layer), read, f"{prefix}{layer.name}_")
        name = self._name(layer, prefix)
        if name not in self.modules:
            place = Placement([tuple(tensor.shape) for tensor in node.input_tensors], self.channels_last)
            self.modules[name] = build_layer(layer, place)
            self.layers[name] = layer
            self.variables |= {f"{name}.{key}": variable for key, variable in place.variables.items()}
        self.steps.append(Step(name, read, self.slots))
        self.slots += 1
        return self.slots - 1

    def _name(self, layer: keras.layers.Layer, prefix: str) -> str:
        name = f"{prefix}{layer.name}"
        if "." in name or hasattr(nn.Module(), name) or self.layers.get(name, layer) is not layer:
            raise InputError(f"Layer name {name!r} cannot name a torch module: give the Keras layer another name")
        return name


def _functional(model: keras.Model) -> keras.Model:
    """Return the functional graph of a model: a Sequential one holds it inside."""
    graph = getattr(model, "_functional", None) if isinstance(model, keras.Sequential) else model
    if not isinstance(graph, keras.Model) or not hasattr(graph, "_nodes_by_depth"):
        raise InputError(
            f"Model {getattr(model, 'name', model)!r} has no graph to walk: build a functional or Sequential Keras "
            "model with its input shape given"
        )
    return graph


def _channels_last(functional: keras.Model) -> bool:
    """Return the data format of a model, read from its layers; Keras' present setting where none of them says."""
    formats = {layer.data_format for layer in functional._flatten_layers() if hasattr(layer, "data_format")}
    if len(formats) > 1:
        raise InputError(f"Model {functional.name!r} mixes data formats: {sorted(formats)}. Build it in one of them")
    return (formats or {keras.config.image_data_format()}) == {"channels_last"}


def _leave_out_probability(graph: Graph, layers: dict[str, keras.layers.Layer]) -> None:
    """Take the softmax or sigmoid off the end: a layer of its own, or the activation of the last dense layer."""
    last = graph.steps[-1]
    activation = activation_name(layers[last.module])
    if last.output != graph.output or activation not in ("linear", "softmax", "sigmoid"):
        raise unsupported(layers[last.module], "the last layer must be linear, a softmax or a sigmoid")
    graph.output_activation = activation
    module = graph.modules[last.module]
    if isinstance(layers[last.module], keras.layers.Activation | keras.layers.Softmax):
        graph.steps.pop()
        graph.output = last.inputs[0]
        del graph.modules[last.module]
    elif isinstance(module, Dense | Convolution):
        module.activation = None


def _with_releases(steps: list[Step], output: int) -> list[Step]:
    """Note at each call which slots are read there for the last time, so that memory is freed as early as can be."""
    last_reader = {slot: i for i, step in enumerate(steps) for slot in step.inputs}
    return [
        replace(step, release=tuple({slot for slot in step.inputs if last_reader[slot] == i and slot != output}))
        for i, step in enumerate(steps)
    ]
