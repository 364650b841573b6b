"""The two networks of this project, in Keras 3 and under any of its backends. No torch here.

`CancerNet` is the network of A. Rosebrock, "Breast cancer classification with Keras and Deep Learning", 2019-02-18,
revised 2020-06-11. It keeps 1,179,648 of its 1,235,133 parameters in one matrix that ties each weight to a position in
the patch, although tissue has no fixed positions. `build_compact` puts the capacity into convolutions instead: two
wider blocks, residual additions, and the average over the last image.
"""

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

        Example:
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

    Example:
        >>> build_compact(classes=2).count_params()
        278589
    """
    shape, axis = _input_shape(width, height, depth, classes)
    image = x = keras.Input(shape, name="image")
    for block, (filters, units) in enumerate(COMPACT_BLOCKS, start=1):
        if block > 1:
            # Three poolings reduce the smallest images to one pixel, which the fourth has to keep.
            padding = "same" if block == len(COMPACT_BLOCKS) else "valid"
            x = keras.layers.MaxPooling2D(2, padding=padding, name=f"block{block - 1}_pool")(x)
        x = _chain(x, _unit(f"block{block}", 1, filters, axis))
        for number in range(2, units + 1):
            # The first unit has set the number of channels: the addition needs no convolution of its own.
            y = _chain(x, _unit(f"block{block}", number, filters, axis))
            x = keras.layers.Add(name=f"block{block}_add{number}")([x, y])
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = keras.layers.Dropout(COMPACT_DROPOUT, name="head_dropout")(x)
    return keras.Model(image, _chain(x, _classifier(classes)), name="compact")


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


def _classifier(classes: int) -> list[keras.layers.Layer]:
    return [
        keras.layers.Dense(classes, name="classifier"),
        keras.layers.Activation(output_activation(classes), name="probability"),
    ]


def _chain(x: keras.KerasTensor, layers: list[keras.layers.Layer]) -> keras.KerasTensor:
    for layer in layers:
        x = layer(x)
    return x
