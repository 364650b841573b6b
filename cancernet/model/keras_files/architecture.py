"""Describe a model's configuration as a list of words, to compare with CancerNet's. No layer is built from it."""

import math
from dataclasses import dataclass
from typing import Any

from cancernet.errors import InputError

Layer = dict[str, Any]

SCALE = 1 / 255
"""Factor from pixel values of 0 to 255 to the 0 to 1 that the networks take."""
EPSILON = 1e-3
"""What Keras' batch norm adds to the variance by default."""


@dataclass(frozen=True)
class Architecture:
    """What a configuration says beyond the weights.

    Attributes:
        steps: The layers as words, in order ("separable 32", "relu", "norm", "pool"), without those that act in
            training only.
        image_size: Side of the input in pixels; None where the configuration has none.
        transposed: Whether the flatten kept the order (channels, height, width), so that the dense kernel needs
            re-ordering.
        logit_scale: Factor of the last layer's output before softmax or sigmoid: 1 / temperature.
    """

    steps: tuple[str, ...]
    image_size: int | None
    transposed: bool
    logit_scale: float


def read_architecture(config: dict[str, Any]) -> Architecture:
    """Read the configuration of a Sequential or a functional model.

    Raises:
        InputError: Another kind of model, one with branches, or one whose input is not square.

    Examples:
        >>> dense = {"class_name": "Dense", "config": {"units": 2, "activation": "softmax"}}
        >>> read_architecture({"class_name": "Sequential", "config": [dense]}).steps
        ('dense 2', 'softmax')
    """
    layers = _in_order(config)
    formats = {_config(layer).get("data_format") for layer in layers if _class(layer) != "Flatten"} - {None}
    if len(formats) > 1:
        raise InputError(f"mixes the data formats {sorted(map(str, formats))}; CancerNet has one")
    channels_first = formats == {"channels_first"}
    steps: list[str] = []
    scale = 1.0
    for layer in layers:
        words = _words(layer, channels_first)
        if words == [f"rescaling {SCALE:.6g} + 0"] and not steps:
            continue  # from 0..255 to 0..1, which the data module does here
        if steps and steps[-1] in ("dense 1", "dense 2") and words[:1] == ["rescaling"]:
            scale *= _config(layer)["scale"]
            continue
        steps += words
    return Architecture(tuple(steps), _image_size(layers, channels_first), _transposed(layers, channels_first), scale)


def _in_order(config: dict[str, Any]) -> list[Layer]:
    inner = config.get("config")
    # Keras before 2.2.3 wrote a Sequential model's layers without a dict around them.
    layers = inner if isinstance(inner, list) else inner.get("layers") if isinstance(inner, dict) else None
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise InputError(f"a {config.get('class_name')!r}, not a Sequential or functional Keras model")
    if config.get("class_name") == "Sequential":
        return layers
    names = [str(layer.get("name") or _config(layer).get("name")) for layer in layers]
    by_source: dict[str | None, Layer] = {}
    for layer in layers:
        sources = _sources(layer.get("inbound_nodes", []), set(names))
        if len(sources) > 1 or (source := next(iter(sources), None)) in by_source:
            raise InputError(
                f"layer {_config(layer).get('name')!r} branches or joins; CancerNet is one chain of layers"
            )
        by_source[source] = layer
    ordered: list[Layer] = []
    name: str | None = None
    while name in by_source:
        layer = by_source.pop(name)
        ordered.append(layer)
        name = str(layer.get("name") or _config(layer).get("name"))
    if by_source:
        raise InputError("has layers that no chain from the input reaches; CancerNet is one chain of layers")
    return ordered


def _sources(nodes: Any, names: set[str]) -> set[str]:
    """Collect the inputs of a layer: Keras 3 names them in `keras_history`, Keras 2 as the first item of a list."""
    found: set[str] = set()
    pending = [nodes]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list):
            if item and isinstance(item[0], str) and item[0] in names:
                found.add(item[0])
            else:
                pending += item
    return found


def _class(layer: Layer) -> str:
    return str(layer.get("class_name"))


def _config(layer: Layer) -> dict[str, Any]:
    inner = layer.get("config")
    return inner if isinstance(inner, dict) else {}


def _words(layer: Layer, channels_first: bool) -> list[str]:
    """Describe a layer: a word for what it computes and one for its activation; none if it acts in training only."""
    settings, name = _config(layer), _class(layer)
    if name in ("InputLayer", "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout"):
        return []
    if name in ("Activation", "Softmax", "ReLU"):
        return _activation(settings.get("activation", {"Softmax": "softmax", "ReLU": "relu"}.get(name)))
    if name == "SeparableConv2D":
        odd = {
            "kernel": (settings.get("kernel_size"), 3),
            "strides": (settings.get("strides"), 1),
            "dilation": (settings.get("dilation_rate"), 1),
            "padding": (settings.get("padding"), "same"),
            "depth multiplier": (settings.get("depth_multiplier"), 1),
        }
        word = " ".join([f"separable {settings.get('filters')}", *_oddities(odd)])
    elif name == "BatchNormalization":
        axis = settings.get("axis")
        axis = axis[0] if isinstance(axis, list) and axis else axis
        epsilon = settings.get("epsilon")
        odd = {"axis": (axis, axis if axis in (1, -1, None) or (axis == 3 and not channels_first) else "channels")}
        if not isinstance(epsilon, int | float) or not math.isclose(epsilon, EPSILON, rel_tol=1e-4):
            odd["epsilon"] = (epsilon, EPSILON)
        word = " ".join(["norm", *_oddities(odd)])
    elif name in ("MaxPooling2D", "MaxPool2D"):
        odd = {
            "size": (settings.get("pool_size"), 2),
            "strides": (settings.get("strides"), 2),
            "padding": (settings.get("padding"), "valid"),
        }
        word = " ".join(["pool", *_oddities(odd)])
    elif name == "Flatten":
        wrong = settings.get("data_format") == "channels_first" and not channels_first
        word = "flatten (channels first)" if wrong else "flatten"
    elif name == "Dense":
        word = f"dense {settings.get('units')}"
    elif name == "Rescaling":
        return _rescaling(settings)
    else:
        return [f"{name} {settings.get('name')!r}"]
    return [word, *_activation(settings.get("activation"))]


def _rescaling(settings: dict[str, Any]) -> list[str]:
    scale, offset = settings.get("scale"), settings.get("offset", 0)
    if not isinstance(scale, int | float) or offset != 0 or scale <= 0:
        return [f"rescaling {scale} + {offset}"]
    if math.isclose(scale, SCALE, rel_tol=1e-6):
        return [f"rescaling {SCALE:.6g} + 0"]
    return ["rescaling", f"{scale}"]


def _activation(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = value.get("config") if isinstance(value.get("config"), str) else value.get("class_name")
    return [] if value in (None, "linear") else [str(value)]


def _oddities(settings: dict[str, tuple[Any, Any]]) -> list[str]:
    """List the settings that differ from those wanted; one number stands for a pair of equal ones."""
    return [f"{name} {value}" for name, (value, wanted) in settings.items() if value not in (wanted, [wanted] * 2)]


def _image_size(layers: list[Layer], channels_first: bool) -> int | None:
    for layer in layers[:2]:
        shape = _config(layer).get("batch_input_shape") or _config(layer).get("batch_shape")
        if isinstance(shape, list) and len(shape) == 4:
            sides = shape[2:] if channels_first else shape[1:3]
            if sides[0] != sides[1]:
                raise InputError(f"takes images of {sides[1]} x {sides[0]} pixels; supported: square ones")
            return int(sides[0]) if isinstance(sides[0], int) else None
    return None


def _transposed(layers: list[Layer], channels_first: bool) -> bool:
    """Return whether the flatten kept channels first; Keras brings them last only where its data format says so."""
    flatten = [layer for layer in layers if _class(layer) == "Flatten"]
    return channels_first and any(_config(layer).get("data_format") != "channels_first" for layer in flatten)
