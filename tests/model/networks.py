# mypy: allow-untyped-defs
"""Networks as users write them: layers without names, of further kinds, and custom ones."""

import keras
from keras import layers


class Gain(layers.Layer):
    """A custom layer with a layer inside, a weight, a count of its calls, and an argument that is no tensor."""

    def build(self, shape):
        self.inner = layers.Dense(shape[-1])
        self.inner.build(shape)
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain")
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, x, factor=1.0):
        self.calls.assign(self.calls + 1)
        return self.inner(x) * self.gain * factor


class Looking(layers.Layer):
    """A layer that decides by what it sees, which no exported graph can."""

    def compute_output_shape(self, shape):
        return shape

    def call(self, x):
        return x if bool(keras.ops.all(x > -1)) else -x


def wave(x):
    return keras.ops.sin(x)


def build(width, height, depth, classes, filters=4, rate=0.5):
    """Layers and operations without a fused form, between some that have one."""
    image = keras.Input((height, width, depth))
    x = layers.Conv2D(filters, 3, strides=2, activation=wave)(image)
    x = layers.LayerNormalization()(x)
    x = layers.SpatialDropout2D(rate)(x)
    x = layers.BatchNormalization()(x * 0.5 + keras.ops.flip(x, axis=1))
    left, right = keras.ops.split(x, 2, axis=3)
    x = layers.Concatenate()([right[:, 1:], left[:, 1:]])
    x = layers.GlobalAveragePooling2D()(layers.Dense(2 * filters)(x))
    gain = Gain()
    x = layers.ReLU()(gain(x, factor=2.0) + gain(x, factor=3.0))
    return keras.Model(image, layers.Dense(classes, activation="sigmoid" if classes == 1 else "softmax")(x))


def build_looking(width, height, depth, classes):
    """A network that cannot be exported."""
    head = [layers.Flatten(), layers.Dense(classes, activation="softmax")]
    return keras.Sequential([keras.Input((height, width, depth)), Looking(), *head])


def give_logits(width, height, depth, classes):
    """No softmax at the end."""
    return keras.Sequential([keras.Input((height, width, depth)), layers.Flatten(), layers.Dense(classes)])


def ignore_everything():
    """A classifier of other images into other classes."""
    return keras.Sequential([keras.Input((20, 20, 3)), layers.Flatten(), layers.Dense(5, activation="softmax")])


def return_nothing(classes):
    """No model."""


def break_down(classes):
    """A builder that refuses, in several lines."""
    raise ValueError(f"no network\nfor {classes} classes")


def normalise_rows(width, height, depth, classes):
    """Batch norm over another axis than the channels', which runs through Keras."""
    norm = layers.BatchNormalization(axis=1)
    head = [layers.Flatten(), layers.Dense(classes, activation="softmax")]
    return keras.Sequential([keras.Input((height, width, depth)), layers.Conv2D(4, 3), norm, *head])
