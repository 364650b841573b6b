"""CancerNet as its author published it in 2019, in Keras 3 and under any of its backends. No torch here.

Source: A. Rosebrock, "Breast cancer classification with Keras and Deep Learning", 2019-02-18, revised 2020-06-11.
"""

from numbers import Integral

from cancernet.errors import InputError
from cancernet.model.backend import avoid_missing_tensorflow

avoid_missing_tensorflow()

import keras  # noqa: E402  (the backend must be settled before)

BLOCKS = ((32, 1), (64, 2), (128, 3))
"""Filters and number of convolutions of the three blocks, from the image to the head."""

HEAD_UNITS = 256
"""Width of the hidden dense layer."""

MINIMUM_SIZE = 8
"""Smallest width and height in pixels: three poolings halve it to 1."""

BLOCK_DROPOUT = 0.25
HEAD_DROPOUT = 0.5


class CancerNet:
    """The tutorial's class: a namespace around `build`."""

    @staticmethod
    def build(width: int = 50, height: int = 50, depth: int = 3, classes: int = 2) -> keras.Model:
        """Build the network with fresh random weights.

        Input: float images in [0, 1], shape (B, height, width, depth), or (B, depth, height, width) where
        ``keras.config.image_data_format()`` says channels first. Output: probabilities, shape (B, classes): a softmax,
        or for ``classes=1`` the sigmoid of one unit. 48 and 50 pixels have the same parameters: 1,235,133 for two
        classes, 1,234,876 for one unit, 1,600 of them batch-norm statistics that no gradient moves.

        Initial values come from Python's ``random`` by way of Keras: seed before building. The dropout layers carry no
        seed, because a seeded one makes the device wait at each call; they follow the backend's own generator.

        Args:
            width: Width of the image in pixels, at least 8.
            height: Height of the image in pixels, at least 8.
            depth: Number of colour channels, at least 1.
            classes: Number of output units, at least 1.

        Returns:
            An uncompiled model named "cancernet", whose layers have names that never change.

        Raises:
            InputError: An argument is not a whole number, or is too small.
        """
        shape, axis = input_shape(width, height, depth, classes)
        layers: list[keras.layers.Layer] = [keras.Input(shape, name="image")]
        for block, (filters, convolutions) in enumerate(BLOCKS, start=1):
            layers += _block(f"block{block}", filters, convolutions, axis)
        layers += _head(classes)
        return keras.Sequential(layers, name="cancernet")


def input_shape(width: int, height: int, depth: int, classes: int) -> tuple[tuple[int, int, int], int]:
    """Check the sizes of a network with three poolings.

    Returns:
        Shape of an image in the present data format, and the axis of its channels in a batch.

    Raises:
        InputError: An argument is not a whole number, or is too small.
    """
    for name, value, least in (
        ("width", width, MINIMUM_SIZE),
        ("height", height, MINIMUM_SIZE),
        ("depth", depth, 1),
        ("classes", classes, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise InputError(f"The network needs {name} to be a whole number of at least {least}. Received: {value!r}")
    first = keras.config.image_data_format() == "channels_first"
    return ((depth, height, width), 1) if first else ((height, width, depth), -1)


def _block(name: str, filters: int, convolutions: int, axis: int) -> list[keras.layers.Layer]:
    """Separable convolution, ReLU, batch norm, in this order and repeated; then pooling and dropout."""
    layers: list[keras.layers.Layer] = []
    for i in range(1, convolutions + 1):
        layers += [
            keras.layers.SeparableConv2D(filters, 3, padding="same", name=f"{name}_conv{i}"),
            keras.layers.Activation("relu", name=f"{name}_relu{i}"),
            keras.layers.BatchNormalization(axis=axis, name=f"{name}_norm{i}"),
        ]
    return [
        *layers,
        keras.layers.MaxPooling2D(2, name=f"{name}_pool"),
        keras.layers.Dropout(BLOCK_DROPOUT, name=f"{name}_dropout"),
    ]


def _head(classes: int) -> list[keras.layers.Layer]:
    return [
        keras.layers.Flatten(name="head_flatten"),
        keras.layers.Dense(HEAD_UNITS, name="head_dense"),
        keras.layers.Activation("relu", name="head_relu"),
        keras.layers.BatchNormalization(name="head_norm"),
        keras.layers.Dropout(HEAD_DROPOUT, name="head_dropout"),
        keras.layers.Dense(classes, name="classifier"),
        keras.layers.Activation("sigmoid" if classes == 1 else "softmax", name="probability"),
    ]
