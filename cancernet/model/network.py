"""The networks of this project, in Keras 3 and under any of its backends. No torch here.

`CancerNet` is the network of A. Rosebrock, "Breast cancer classification with Keras and Deep Learning", 2019-02-18,
revised 2020-06-11. It keeps 1,179,648 of its 1,235,133 parameters in one matrix that ties each weight to a position in
the patch, although tissue has no fixed positions. The others put the capacity into convolutions and average the last
image: `build_compact` in separable ones with residual additions, `build_residual` in full ones, which cost the same
memory traffic (additions: He et al., "Deep residual learning for image recognition", CVPR 2016).
"""

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral

import keras

from cancernet.errors import InputError

BLOCKS = ((32, 1), (64, 2), (128, 3))
"""CancerNet's three blocks, from the image to the head: filters, number of convolutions."""
HEAD_UNITS = 256
"""Width of CancerNet's hidden dense layer."""
BLOCK_DROPOUT = 0.25
HEAD_DROPOUT = 0.5

COMPACT_BLOCKS = ((32, 1), (64, 2), (128, 2), (256, 1), (256, 3))
"""The compact network's five blocks: filters, number of units. A pooling lies between each two."""
COMPACT_DROPOUT = 0.25

RESIDUAL_BLOCKS = ((24, 1), (48, 2), (96, 2), (192, 2))
"""The residual network's four blocks: filters, number of units. A pooling lies between each two."""
RESIDUAL_DROPOUT = 0.25

MINIMUM_SIZE = 8
"""Smallest width and height in pixels: three poolings halve it to 1."""


class CancerNet:
    """The tutorial's class: a namespace around `build`."""

    @staticmethod
    def build(width: int = 50, height: int = 50, depth: int = 3, classes: int = 2) -> keras.Model:
        """Build CancerNet with fresh random weights.

        Input: float images in [0, 1], shape (B, height, width, depth), or (B, depth, height, width) where
        ``keras.config.image_data_format()`` says channels first. Output: probabilities, shape (B, classes): a softmax,
        or for ``classes=1`` the sigmoid of one unit. 48 and 50 pixels have the same parameters: 1,235,133 for two
        classes, 1,234,876 for one unit, 1,600 of them batch-norm statistics that no gradient moves.

        Initial values come from Python's ``random`` through Keras: seed before building. The dropout layers carry no
        seed, because a seeded one makes the device wait at each call; they follow the backend's own generator.

        Args:
            width: Width of the image in pixels, at least 8.
            height: Height of the image in pixels, at least 8.
            depth: Number of colour channels, at least 1.
            classes: Number of output units, at least 1.

        Returns:
            An uncompiled model named "cancernet", whose layers have fixed names.

        Raises:
            InputError: An argument is not an integer, or is too small.

        Examples:
            >>> CancerNet.build(width=48, height=48).count_params()
            1235133
        """
        shape, axis = _input_shape(width, height, depth, classes)
        layers: list[keras.layers.Layer] = [keras.Input(shape, name="image")]
        for block, (filters, convolutions) in enumerate(BLOCKS, start=1):
            for number in range(1, convolutions + 1):
                layers += _unit(f"block{block}", number, filters, axis)
            layers.append(keras.layers.MaxPooling2D(2, name=f"block{block}_pool"))
            layers.append(keras.layers.Dropout(BLOCK_DROPOUT, name=f"block{block}_dropout"))
        layers += [
            keras.layers.Flatten(name="head_flatten"),
            keras.layers.Dense(HEAD_UNITS, name="head_dense"),
            keras.layers.Activation("relu", name="head_relu"),
            keras.layers.BatchNormalization(name="head_norm"),
            keras.layers.Dropout(HEAD_DROPOUT, name="head_dropout"),
            *_classifier(classes),
        ]
        return keras.Sequential(layers, name="cancernet")


def build_compact(width: int = 50, height: int = 50, depth: int = 3, classes: int = 2) -> keras.Model:
    """Build the compact network with fresh random weights; arguments, input and output are those of `CancerNet.build`.

    Returns:
        An uncompiled model named "compact", whose layers have fixed names.

    Raises:
        InputError: An argument is not an integer, or is too small.

    Examples:
        >>> build_compact(classes=2).count_params()
        278589
    """
    shape, axis = _input_shape(width, height, depth, classes)
    image = keras.Input(shape, name="image")
    x = _residual_blocks(image, COMPACT_BLOCKS, partial(_unit, axis=axis))
    return _averaged(image, x, COMPACT_DROPOUT, classes, "compact")


def build_residual(width: int = 50, height: int = 50, depth: int = 3, classes: int = 2) -> keras.Model:
    """Build the residual network with fresh random weights; arguments, input, output are those of `CancerNet.build`.

    Returns:
        An uncompiled model named "residual", whose layers have fixed names.

    Raises:
        InputError: An argument is not an integer, or is too small.

    Examples:
        >>> build_residual(classes=2).count_params()
        657002
    """
    shape, axis = _input_shape(width, height, depth, classes)
    image = keras.Input(shape, name="image")
    x = _residual_blocks(image, RESIDUAL_BLOCKS, partial(_full_unit, axis=axis))
    return _averaged(image, x, RESIDUAL_DROPOUT, classes, "residual")


def output_activation(classes: int) -> str:
    """Return the activation at the end of a classifier: "sigmoid" for one unit, else "softmax"."""
    return "sigmoid" if classes == 1 else "softmax"


def _input_shape(width: int, height: int, depth: int, classes: int) -> tuple[tuple[int, int, int], int]:
    """Check the sizes, and return the shape of an image in the present data format and the axis of its channels."""
    for name, value, least in (
        ("width", width, MINIMUM_SIZE),
        ("height", height, MINIMUM_SIZE),
        ("depth", depth, 1),
        ("classes", classes, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise InputError(f"The network needs {name} to be an integer of at least {least}. Received: {value!r}")
    first = keras.config.image_data_format() == "channels_first"
    return ((depth, height, width), 1) if first else ((height, width, depth), -1)


def _unit(block: str, number: int, filters: int, axis: int) -> list[keras.layers.Layer]:
    """Return separable convolution, ReLU and batch norm, in the tutorial's order."""
    return [
        keras.layers.SeparableConv2D(filters, 3, padding="same", name=f"{block}_conv{number}"),
        keras.layers.Activation("relu", name=f"{block}_relu{number}"),
        keras.layers.BatchNormalization(axis=axis, name=f"{block}_norm{number}"),
    ]


def _full_unit(block: str, number: int, filters: int, axis: int) -> list[keras.layers.Layer]:
    """Return convolution, batch norm, whose shift is the only bias, and ReLU."""
    return [
        keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{block}_conv{number}"),
        keras.layers.BatchNormalization(axis=axis, name=f"{block}_norm{number}"),
        keras.layers.Activation("relu", name=f"{block}_relu{number}"),
    ]


def _residual_blocks(
    x: keras.KerasTensor,
    blocks: Sequence[tuple[int, int]],
    unit: Callable[[str, int, int], list[keras.layers.Layer]],
) -> keras.KerasTensor:
    """Return the image after blocks of units: each but a block's first is added to what it was given."""
    for block, (filters, units) in enumerate(blocks, start=1):
        if block > 1:
            # Three poolings reduce the smallest images to one pixel, which a fourth has to keep.
            padding = "same" if block > 4 else "valid"
            x = keras.layers.MaxPooling2D(2, padding=padding, name=f"block{block - 1}_pool")(x)
        # The first unit sets the number of channels: the additions need no convolution of their own.
        x = _chain(x, unit(f"block{block}", 1, filters))
        for number in range(2, units + 1):
            y = _chain(x, unit(f"block{block}", number, filters))
            x = keras.layers.Add(name=f"block{block}_add{number}")([x, y])
    return x


def _averaged(image: keras.KerasTensor, x: keras.KerasTensor, dropout: float, classes: int, name: str) -> keras.Model:
    """End a network by the average over its last image, dropout and the classifier."""
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = keras.layers.Dropout(dropout, name="head_dropout")(x)
    return keras.Model(image, _chain(x, _classifier(classes)), name=name)


def _classifier(classes: int) -> list[keras.layers.Layer]:
    return [
        keras.layers.Dense(classes, name="classifier"),
        keras.layers.Activation(output_activation(classes), name="probability"),
    ]


def _chain(x: keras.KerasTensor, layers: list[keras.layers.Layer]) -> keras.KerasTensor:
    for layer in layers:
        x = layer(x)
    return x
