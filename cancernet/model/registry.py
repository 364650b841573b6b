"""Networks by name: those of this project, those of `keras.applications`, and any callable that returns a Keras model.

A further network of this project needs one entry in `NETWORKS`.
"""

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cancernet.errors import InputError, one_line
from cancernet.model.fused import keras
from cancernet.model.fused.network import TorchNetwork
from cancernet.model.network import CancerNet, build_compact, build_residual, output_activation

Value = bool | int | float | str | None
NetworkArguments = dict[str, Value | list[Value]]
"""Keyword arguments of a network's builder: plain values, so that a checkpoint can hold them without holding code."""

Builder = Callable[..., keras.Model]

NETWORKS: dict[str, Builder] = {
    "cancernet": CancerNet.build,
    "compact": build_compact,
    "residual": build_residual,
}
"""Name -> builder of each network of this project."""
APPLICATION = re.compile(r"keras\.applications\.[A-Z]\w*")
CHOICES = (
    f"use one of {', '.join(NETWORKS)}, keras.applications.NAME or the dotted path of a callable that returns a Keras "
    "model"
)


def is_known(name: str) -> bool:
    """Return whether a network belongs to this project or to Keras: building any other runs foreign code.

    Examples:
        >>> is_known("cancernet"), is_known("keras.applications.MobileNetV2"), is_known("mylab.networks.build")
        (True, True, False)
    """
    return name in NETWORKS or APPLICATION.fullmatch(name) is not None


def create_network(name: str, arguments: NetworkArguments, size: int, classes: int) -> TorchNetwork:
    """Build a network by its name, with fresh random weights, on the CPU for any default device of Keras.

    The builder is called with those of the following that its signature has: `width`, `height`, `depth` and `classes`,
    as the tutorial's; `input_shape`, `weights=None`, `classifier_activation` and `include_preprocessing=False`, as
    those of `keras.applications`. The network's images are RGB, scaled to [0, 1].

    Args:
        name: `cancernet`, `compact`, `residual`, or the dotted path of a callable that returns a Keras model.
        arguments: Further keyword arguments of the builder, which win.
        size: Side of the image in pixels.
        classes: 2 for a softmax, or 1 for a sigmoid.

    Raises:
        InputError: There is no such network, it refuses size or arguments, or it is no classifier of such images.

    Examples:
        >>> create_network("compact", {}, size=50, classes=2).output_activation
        'softmax'
    """
    build = NETWORKS.get(name) or _find(name)
    given: dict[str, Any] = _plain(name, arguments)
    try:
        given = {**_offer(build, size, classes), **given}
        inspect.signature(build).bind(**given)
        with keras.device("cpu"), _fresh_layer_names():
            model = build(**given)
    except (TypeError, ValueError) as error:
        raise InputError(f"model.network: {name} cannot be built with {given}: {one_line(error)}") from error
    if not isinstance(model, keras.Model):
        raise InputError(f"model.network: {name} returns {type(model).__name__}, not a Keras model; {CHOICES}")
    with keras.device("cpu"):
        network = TorchNetwork(model)
    _require_classifier(name, network, size, classes)
    return network


def _find(name: str) -> Builder:
    try:
        found = pkgutil.resolve_name(name) if "." in name else None
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"model.network: {name!r} cannot be imported ({error}); {CHOICES}") from error
    if not callable(found):
        raise InputError(f"model.network: {name!r} is no network; {CHOICES}")
    return found


@contextmanager
def _fresh_layer_names() -> Iterator[None]:
    """Restart the counters in the names that Keras generates, so that a network gets the same names each time."""
    settings = keras.src.backend.common.global_state  # Keras' public `clear_session` would clear other settings too
    counters = settings.get_global_attribute("object_name_uids")
    settings.set_global_attribute("object_name_uids", None)
    try:
        yield
    finally:
        settings.set_global_attribute("object_name_uids", counters)


def _offer(build: Builder, size: int, classes: int) -> dict[str, Any]:
    """Return those standard arguments that a builder takes."""
    first = keras.config.image_data_format() == "channels_first"
    offered = {
        "width": size,
        "height": size,
        "depth": 3,
        "classes": classes,
        "input_shape": (3, size, size) if first else (size, size, 3),
        "weights": None,
        "classifier_activation": output_activation(classes),
        "include_preprocessing": False,
    }
    taken = inspect.signature(build).parameters
    return {argument: value for argument, value in offered.items() if argument in taken}


def _plain(name: str, arguments: NetworkArguments) -> NetworkArguments:
    """Return the arguments after checking that they are plain values, and no weights for other classes."""
    for argument, value in arguments.items():
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(item, Value) for item in values):
            raise InputError(
                f"model.network_arguments: {argument}: expected numbers, text, truth values or lists of them, "
                f"got {value!r}"
            )
    if APPLICATION.fullmatch(name) and arguments.get("weights") is not None:
        raise InputError(
            "model.network_arguments: weights: Keras' pretrained weights are for other classes; leave it out, and "
            "start from a checkpoint with --model.weights"
        )
    return arguments


def _require_classifier(name: str, network: TorchNetwork, size: int, classes: int) -> None:
    shape = network.image_shape
    if any(side not in (None, wanted) for side, wanted in zip(shape, (3, size, size), strict=True)):
        raise InputError(f"model.network: {name} takes images of shape {shape}, not {(3, size, size)}")
    if network.classes != classes:
        raise InputError(
            f"model.network: {name} has {network.classes} outputs, and model.classes is {classes}; they must agree"
        )
    if network.output_activation != output_activation(classes):
        raise InputError(
            f"model.network: {name} ends with {network.output_activation}; with {classes} output"
            f"{'s'[: classes - 1]} it must end with {output_activation(classes)}"
        )
