"""CancerNet's idiom with its capacity in convolutions: separable units with residual additions, no matrix over pixels.

CancerNet keeps 1,179,648 of its 1,235,133 parameters in one matrix that ties each weight to a place in the patch, and
tissue knows no such places. Here two wider blocks take over, and the average over the last image.
"""

from cancernet.model.network import input_shape

import keras  # isort: skip  (network settled the backend)

BLOCKS = ((32, 1), (64, 2), (128, 2), (256, 1), (256, 3))
"""Filters and number of units of the five blocks; four poolings lie between them."""

DROPOUT = 0.25


def build(width: int = 50, height: int = 50, depth: int = 3, classes: int = 2) -> keras.Model:
    """Build the network with fresh random weights; it takes and gives what `CancerNet.build` does.

    Args:
        width: Width of the image in pixels, at least 8.
        height: Height of the image in pixels, at least 8.
        depth: Number of colour channels, at least 1.
        classes: Number of output units, at least 1: a softmax, or one sigmoid.

    Returns:
        An uncompiled model named "compact", whose layers have names that never change.

    Raises:
        InputError: An argument is not a whole number, or is too small.
    """
    shape, axis = input_shape(width, height, depth, classes)
    image = x = keras.Input(shape, name="image")
    for block, (filters, units) in enumerate(BLOCKS, start=1):
        if block > 1:
            # Three poolings leave one pixel of the smallest images, and the last has to keep it.
            padding = "same" if block == len(BLOCKS) else "valid"
            x = keras.layers.MaxPooling2D(2, padding=padding, name=f"block{block - 1}_pool")(x)
        x = _unit(x, f"block{block}", 1, filters, axis)
        for number in range(2, units + 1):
            # The unit before has widened the image: the addition needs no convolution of its own.
            y = _unit(x, f"block{block}", number, filters, axis)
            x = keras.layers.Add(name=f"block{block}_add{number}")([x, y])
    x = keras.layers.GlobalAveragePooling2D(name="head_pool")(x)
    x = keras.layers.Dropout(DROPOUT, name="head_dropout")(x)
    x = keras.layers.Dense(classes, name="classifier")(x)
    x = keras.layers.Activation("sigmoid" if classes == 1 else "softmax", name="probability")(x)
    return keras.Model(image, x, name="compact")


def _unit(x: keras.KerasTensor, block: str, number: int, filters: int, axis: int) -> keras.KerasTensor:
    """Apply separable convolution, ReLU and batch norm, in the tutorial's order."""
    x = keras.layers.SeparableConv2D(filters, 3, padding="same", name=f"{block}_conv{number}")(x)
    x = keras.layers.Activation("relu", name=f"{block}_relu{number}")(x)
    return keras.layers.BatchNormalization(axis=axis, name=f"{block}_norm{number}")(x)
