"""Read the weights of layers from HDF5, in the two layouts that Keras writes."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

MOST_VALUES = 1 << 26
"""Most values of one array; a larger one is refused unread. The largest of a CancerNet has 1,179,648."""
OTHER_GROUPS = ("optimizer", "optimizer_weights", "metrics", "compile_metrics", "seed_generator", "loss_tracker")
"""Groups without weights of layers."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class StoredLayer:
    """A layer's name in the file, and its arrays (float32) in Keras' order."""

    name: str
    arrays: list[np.ndarray]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shape of each array."""
        return tuple(array.shape for array in self.arrays)

    @property
    def kind(self) -> str:
        """Kind of the layer, see `kind_of`."""
        return kind_of(self.shapes)


def kind_of(shapes: tuple[Shape, ...]) -> str:
    """Tell a layer's kind from the shapes of its weights: `separable`, `norm`, `dense` or `unknown`.

    Examples:
        >>> kind_of(((256, 2), (2,)))
        'dense'
    """
    ranks = [len(shape) for shape in shapes]
    if ranks == [1, 1, 1, 1] and len(set(shapes)) == 1:
        return "norm"
    if ranks == [4, 4, 1] and shapes[1][:2] == (1, 1):
        return "separable"
    return "dense" if ranks == [2, 1] else "unknown"


def read_named_layers(group: h5py.Group) -> list[StoredLayer]:
    """Read the layout of Keras 1 and 2: attributes list the layers in the network's order, and each one's weights."""
    layers = []
    for name in _names(group, "layer_names"):
        inner = _hard(group, name)
        arrays = [_read(_hard(inner, weight)) for weight in _names(inner, "weight_names")]
        if arrays:
            layers.append(StoredLayer(name, arrays))
    return layers


def read_counted_layers(group: h5py.Group) -> list[StoredLayer]:
    """Read the layout of Keras 3: groups named by class and counter, their arrays numbered under `vars`.

    The counters give the order within one class; the file does not tell how classes alternate.
    """
    layers = []
    for path, inner in _walk(group, ""):
        variables = [key for key in inner if key.isdigit()]
        if path.endswith("/vars") and variables:
            arrays = [_read(_hard(inner, key)) for key in sorted(variables, key=int)]
            layers.append(StoredLayer(path.removesuffix("/vars").rpartition("/")[2], arrays))
    return sorted(layers, key=lambda layer: _counter(layer.name))


def _walk(group: h5py.Group, prefix: str) -> Iterator[tuple[str, h5py.Group]]:
    for key in group:
        if key in OTHER_GROUPS:
            continue
        inner = _hard(group, key)
        if isinstance(inner, h5py.Group):
            yield f"{prefix}/{key}", inner
            yield from _walk(inner, f"{prefix}/{key}")


def _counter(name: str) -> tuple[str, int]:
    """Split "dense_12" into ("dense", 12), so that 12 comes after 2; a name without a counter comes first."""
    found = re.fullmatch(r"(.*?)(?:_(\d+))?", name)
    assert found is not None  # the pattern matches any text
    return found[1], int(found[2] or 0)


def _hard(group: h5py.Group, name: str) -> Any:
    """Return a member that is stored in the file itself: a link could point to any file of this machine.

    Raises:
        KeyError: No such member.
        ValueError: The member is missing, or a link.
    """
    place = group
    for part in name.strip("/").split("/"):
        if part in ("", ".", "..") or not isinstance(place, h5py.Group):
            raise KeyError(f"no member {name!r}")
        if not isinstance(place.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{name!r} is missing, or a link to elsewhere")
        place = place[part]
    return place


def _read(dataset: Any) -> np.ndarray:
    """Read a dataset as float32.

    Raises:
        ValueError: Not numbers, too many of them, not finite, or stored outside the file.
    """
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiuV":
        raise ValueError(f"{getattr(dataset, 'name', '')} holds no numbers")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{dataset.name} is stored in another file")
    if dataset.size is None or dataset.size > MOST_VALUES:
        raise ValueError(f"{dataset.name} holds {dataset.size} values, more than any layer of a CancerNet")
    if dataset.dtype.kind == "V":
        raise ValueError(f"{dataset.name} holds {dataset.dtype}, not plain numbers; save the weights as float32")
    array = np.asarray(dataset[()], dtype=np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{dataset.name} holds values that are not finite")
    return array


def _names(group: h5py.Group, attribute: str) -> list[str]:
    """Return a list of names, which Keras splits over several attributes where it is long."""
    if attribute in group.attrs:
        values = list(group.attrs[attribute])
    else:
        values = []
        while f"{attribute}{len(values)}" in group.attrs:  # pieces are counted from 0
            values.append(group.attrs[f"{attribute}{len(values)}"])
        values = [name for piece in values for name in piece]
    return [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in values]
