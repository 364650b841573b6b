"""Networks by name: ours, those of `keras.applications`, and whatever callable returns a Keras model."""

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cancernet.errors import InputError
from cancernet.model import compact
from cancernet.model.fused.network import TorchNetwork
from cancernet.model.network import CancerNet

import keras  # isort: skip  (execution settled the backend)
from keras.src.backend.common import global_state  # isort: skip  (what Keras exports clears its settings as well)

Value = bool | int | float | str | None
NetworkArguments = dict[str, Value | list[Value]]
"""Keyword arguments for a network's builder: plain, so that a checkpoint holds them and hides no code in them."""

Builder = Callable[..., keras.Model]

OURS: dict[str, Builder] = {"cancernet": CancerNet.build, "compact": compact.build}
"""Name -> what builds the network."""
APPLICATION = re.compile(r"keras\.applications\.[A-Z]\w*")
WAYS = f"use one of {', '.join(OURS)}, keras.applications.NAME or the dotted path of what returns a Keras model"


def is_known(name: str) -> bool:
    """Return whether a network is ours or Keras' own: building any other means running code that someone named."""
    return name in OURS or APPLICATION.fullmatch(name) is not None


def create_network(name: str, arguments: NetworkArguments, size: int, classes: int) -> TorchNetwork:
    """Build a network by its name, with fresh random weights, on the CPU.

    What builds it is called with what its signature takes of: `width`, `height`, `depth` and `classes`, as the
    tutorial's does; `input_shape`, `weights=None`, `classifier_activation` and `include_preprocessing=False`, as those
    of `keras.applications` do. The images that will come in are RGB, scaled to [0, 1].

    Args:
        name: `cancernet`, `compact`, or the dotted path of a callable that returns a Keras model.
        arguments: Further keyword arguments for it, which win.
        size: Side of the image in pixels.
        classes: 2 under a softmax, or 1 under a sigmoid.

    Raises:
        InputError: There is no such network, it refuses size or arguments, or it is no classifier of such images.
    """
    build = OURS.get(name) or _find(name)
    given: dict[str, Any] = _plain(name, arguments)
    try:
        given = {**_offer(build, size, classes), **given}
        inspect.signature(build).bind(**given)
        with keras.device("cpu"), _names_from_the_start():
            model = build(**given)
    except (TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"model.network: {name} cannot be built with {given}: {reason}") from error
    if not isinstance(model, keras.Model):
        raise InputError(f"model.network: {name} returns {type(model).__name__}, not a Keras model; {WAYS}")
    network = TorchNetwork(model)
    _require_classifier(name, network, size, classes)
    return network


def _find(name: str) -> Builder:
    try:
        found = pkgutil.resolve_name(name) if "." in name else None
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"model.network: {name!r} cannot be imported ({error}); {WAYS}") from error
    if not callable(found):
        raise InputError(f"model.network: {name!r} is no network; {WAYS}")
    return found


@contextmanager
def _names_from_the_start() -> Iterator[None]:
    """Let the names that Keras makes up begin again: the same network must get the same ones each time."""
    counters = global_state.get_global_attribute("object_name_uids")
    global_state.set_global_attribute("object_name_uids", None)
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", counters)


def _offer(build: Builder, size: int, classes: int) -> dict[str, Any]:
    """Return those arguments of ours that a builder takes."""
    first = keras.config.image_data_format() == "channels_first"
    offered = {
        "width": size,
        "height": size,
        "depth": 3,
        "classes": classes,
        "input_shape": (3, size, size) if first else (size, size, 3),
        "weights": None,
        "classifier_activation": _activation(classes),
        "include_preprocessing": False,
    }
    taken = inspect.signature(build).parameters
    return {argument: value for argument, value in offered.items() if argument in taken}


def _plain(name: str, arguments: NetworkArguments) -> NetworkArguments:
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
            "start from a checkpoint of ours with --model.weights"
        )
    return arguments


def _activation(classes: int) -> str:
    return "sigmoid" if classes == 1 else "softmax"


def _require_classifier(name: str, network: TorchNetwork, size: int, classes: int) -> None:
    shape = network.image_shape
    if any(side not in (None, ours) for side, ours in zip(shape, (3, size, size), strict=True)):
        raise InputError(f"model.network: {name} takes images of shape {shape}, not {(3, size, size)}")
    if network.classes != classes:
        raise InputError(
            f"model.network: {name} has {network.classes} outputs, and model.classes is {classes}; they must agree"
        )
    if network.output_activation != _activation(classes):
        raise InputError(
            f"model.network: {name} ends with {network.output_activation}; with {classes} output"
            f"{'s'[: classes - 1]} it must end with {_activation(classes)}"
        )
