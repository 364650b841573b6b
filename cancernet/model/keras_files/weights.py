"""Read the weights of a CancerNet that Keras or tf.keras saved, matched by structure and shape, not by name.

Layer names carry Keras' counters ("separable_conv2d_4"), so they tell nothing. The order of the layers and the shape of
every weight have to agree, and, where the file has a configuration, what every layer computes.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from cancernet.errors import InputError, brief
from cancernet.model.fused.network import TorchNetwork
from cancernet.model.keras_files.architecture import Architecture, read_architecture
from cancernet.model.keras_files.layers import Shape, StoredLayer
from cancernet.model.keras_files.storage import Stored, read_file
from cancernet.model.network import BLOCKS, HEAD_UNITS, output_activation

TUTORIAL_SIZE = 48
"""The tutorial's side of the input in pixels, assumed where the file has none."""
PARAMETERS = {
    "separable": ("depthwise_kernel", "pointwise_kernel", "bias"),
    "norm": ("weight", "bias", "running_mean", "running_var"),
    "dense": ("kernel", "bias"),
}
"""Names in `TorchNetwork.state_dict`, in the order in which Keras keeps a layer's weights."""

FlattenOrder = Literal["hwc", "chw"]


@dataclass(frozen=True)
class NetworkWeights:
    """The weights of a CancerNet.

    Attributes:
        state: Name in `TorchNetwork.state_dict` -> array, float32.
        classes: Number of output units: 2 under a softmax, or 1 under a sigmoid.
        image_size: Side of the input in pixels, from the file, else the tutorial's where that fits.
        image_size_known: Whether it comes from the file.
        source: File name and layout.
    """

    state: dict[str, np.ndarray]
    classes: int
    image_size: int
    image_size_known: bool
    source: str


@dataclass(frozen=True)
class _Expected:
    name: str
    kind: str
    shapes: tuple[Shape, ...]


def read_weights(
    file: str | Path, image_size: int | None = None, flatten: FlattenOrder | None = None
) -> NetworkWeights:
    """Read a CancerNet from `.keras`, `.weights.h5`, or the `.h5` of Keras 1 and 2; nothing in the file is run.

    Args:
        file: The file.
        image_size: Side of the input in pixels, where the file does not have it (files of weights only never do).
        flatten: Order in which the dense layer reads the image, where the file does not have it: `hwc`, or `chw` for a
            channels-first model whose flatten did not transpose.

    Raises:
        InputError: Another kind of file, not a CancerNet (both structures are listed), code in the file, or an option
            that contradicts it.
    """
    path = Path(file)
    stored = read_file(path)
    try:
        architecture = None if stored.config is None else read_architecture(stored.config)
        side, classes = _fit_shapes(stored)
        if architecture is not None:
            _fit_steps(architecture, classes)
        size, known = _image_size(stored, architecture, side, image_size)
        transposed = flatten == "chw"
        if architecture is not None:
            transposed = architecture.transposed
            if flatten is not None and (flatten == "chw") != transposed:
                raise InputError(
                    f"--flatten {flatten} contradicts the file, whose layers have the other order; leave it out"
                )
        state = _state(stored, transposed, side, 1.0 if architecture is None else architecture.logit_scale)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (TypeError, ValueError, OverflowError) as error:  # a number where a name belongs, or the like
        raise InputError(f"{path}: its configuration is not what Keras writes ({brief(error)})") from error
    return NetworkWeights(state, classes, size, known, f"{path.name}, {stored.layout}")


def load_weights(network: TorchNetwork, weights: NetworkWeights) -> None:
    """Load weights into a CancerNet.

    Raises:
        InputError: The network has another number of output units, or takes images of another size.
    """
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: value.shape for name, value in weights.state.items()}
    different = [
        f"{name} {found.get(name)} instead of {wanted.get(name)}"
        for name in sorted({*wanted, *found})
        if wanted.get(name) != found.get(name)
    ]
    if different:
        raise InputError(
            f"{weights.source}: holds a CancerNet with {weights.classes} output units for images of "
            f"{weights.image_size} pixels: {', '.join(different)}. "
            f"Give --model.classes {weights.classes} --model.image_size {weights.image_size}"
        )
    network.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.state.items()})


def _expected(classes: int, side: int) -> list[_Expected]:
    """List the layers of CancerNet that have weights, in order."""
    layers, channels = [], 3
    for block, (filters, convolutions) in enumerate(BLOCKS, start=1):
        for i in range(1, convolutions + 1):
            kernels = ((3, 3, channels, 1), (1, 1, channels, filters), (filters,))
            layers.append(_Expected(f"block{block}_conv{i}", "separable", kernels))
            layers.append(_Expected(f"block{block}_norm{i}", "norm", ((filters,),) * 4))
            channels = filters
    return [
        *layers,
        _Expected("head_dense", "dense", ((side * side * channels, HEAD_UNITS), (HEAD_UNITS,))),
        _Expected("head_norm", "norm", ((HEAD_UNITS,),) * 4),
        _Expected("classifier", "dense", ((HEAD_UNITS, classes), (classes,))),
    ]


def _fit_shapes(stored: Stored) -> tuple[int, int]:
    """Compare the shapes of all weights with CancerNet's.

    Returns:
        Side of the image that is flattened, and the number of output units, the two sizes that may differ.
    """
    dense = [layer.shapes for layer in stored.layers if layer.kind == "dense"]
    features = dense[0][0][0] if dense else 0
    classes = dense[-1][0][1] if dense else 0
    side = math.isqrt(features // BLOCKS[-1][0]) or 6
    classes = classes if classes in (1, 2) else 2
    expected = _expected(classes, side)
    if _sequence(stored.layers, stored.ordered) != _sequence(expected, stored.ordered):
        raise InputError(f"not a CancerNet. It holds {_listing(stored.layers)}. CancerNet holds {_listing(expected)}")
    return side, classes


def _sequence(layers: list[Any], ordered: bool) -> Any:
    """Return the kinds and shapes to compare: in one order, or per kind where the file does not keep the order."""
    shapes = [(layer.kind, layer.shapes) for layer in layers]
    return shapes if ordered else {kind: [s for k, s in shapes if k == kind] for kind, _ in shapes}


def _listing(layers: list[Any]) -> str:
    if not layers:
        return "no weights"
    return ", ".join(
        f"{layer.name} " + "+".join("x".join(map(str, shape)) for shape in layer.shapes) for layer in layers
    )


def _fit_steps(architecture: Architecture, classes: int) -> None:
    """Compare what the layers compute with CancerNet."""
    expected: list[str] = []
    for filters, convolutions in BLOCKS:
        expected += [f"separable {filters}", "relu", "norm"] * convolutions + ["pool"]
    expected += ["flatten", f"dense {HEAD_UNITS}", "relu", "norm", f"dense {classes}"]
    expected.append(output_activation(classes))
    if list(architecture.steps) != expected:
        raise InputError(
            f"not a CancerNet. Its layers are {', '.join(architecture.steps)}. CancerNet's are {', '.join(expected)}"
        )


def _image_size(stored: Stored, architecture: Architecture | None, side: int, asked: int | None) -> tuple[int, bool]:
    """Return the side of the input, and whether the file or the caller gave it.

    Three poolings halve the image, so eight sizes have the same weights.
    """
    possible = range(8 * side, 8 * side + 8)
    known = stored.note.get("image_size") if architecture is None else architecture.image_size
    if known is not None and asked not in (None, known):
        raise InputError(f"--image_size {asked} contradicts the file, whose network takes {known} pixels; leave it out")
    size = asked if known is None else known
    if size is None:
        return (TUTORIAL_SIZE if TUTORIAL_SIZE in possible else possible[0]), False
    if size not in possible:
        raise InputError(f"image_size {size} does not fit the dense layer, which takes {possible[0]} to {possible[-1]}")
    return int(size), True


def _state(stored: Stored, transposed: bool, side: int, logit_scale: float) -> dict[str, np.ndarray]:
    kinds: dict[str, list[StoredLayer]] = {}
    for layer in stored.layers:
        kinds.setdefault(layer.kind, []).append(layer)
    state = {}
    for place in _expected(1, side):
        layer = kinds[place.kind].pop(0)
        for name, array in zip(PARAMETERS[place.kind], layer.arrays, strict=True):
            state[f"{place.name}.{name}"] = array
    if transposed:
        kernel = state["head_dense.kernel"].reshape(-1, side, side, HEAD_UNITS)
        state["head_dense.kernel"] = np.ascontiguousarray(kernel.transpose(1, 2, 0, 3)).reshape(-1, HEAD_UNITS)
    for name in ("classifier.kernel", "classifier.bias"):
        state[name] = state[name] * np.float32(logit_scale)
    return state
