"""Open a weight file safely and tell its kind: only NumPy arrays and JSON are read.

Four layouts are read. Keras 3 and tf_keras write a zip (`.keras`: config.json and model.weights.h5) or the inner HDF5
file alone (`.weights.h5`); Keras 1 and 2 wrote HDF5 with names in attributes, the weights alone (`save_weights`) or
under `model_weights`, with a `model_config` (`save`).
"""

import io
import json
import mmap
import pickle
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from cancernet.errors import InputError, brief
from cancernet.model.keras_files.layers import StoredLayer, read_counted_layers, read_named_layers

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
HEAP_MAGIC = b"GCOL\1\0\0\0"
LARGEST_MEMBER = 1 << 30
"""Most bytes of a member of an archive; a larger one is refused unread. CancerNet and its optimiser: 15 million."""
SOURCE_ATTRIBUTE = "cancernet"
"""Root attribute in which an exported `.weights.h5` describes itself, as JSON."""


@dataclass(frozen=True)
class Stored:
    """Content of a weight file.

    Attributes:
        layers: Layers that have weights.
        ordered: Whether the layers are in the order of the network; otherwise only those of one kind are.
        config: The model's configuration as Keras writes it; None where the file holds weights only.
        layout: Kind of file, in words.
        note: Description that `cancernet export` wrote; empty in other files.
    """

    layers: list[StoredLayer]
    ordered: bool
    config: dict[str, Any] | None
    layout: str
    note: dict[str, Any]


def read_file(path: Path) -> Stored:
    """Read layers and configuration of a file that Keras wrote.

    Raises:
        InputError: The file is missing, of another kind, damaged, or carries code.
    """
    if not path.is_file():
        kind = "a folder (a SavedModel holds a program)" if path.is_dir() else "no file"
        raise InputError(f"{path}: {kind}; give a .keras, .weights.h5 or .h5 file that Keras saved")
    with path.open("rb") as file:
        magic = file.read(8)
    try:
        if magic == HDF5_MAGIC:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                refuse_endless_heaps(mapped)
            with h5py.File(path, "r") as content:
                return _read_hdf5(path, content)
        if magic.startswith(b"PK\x03\x04"):
            return _read_archive(path)
    except InputError:
        raise
    except Exception as error:  # of JSON, zip, zlib, HDF5 and NumPy
        raise InputError(f"{path}: damaged, or not what Keras writes ({brief(error)}); save the model again") from error
    if _is_pickle(path):
        raise _carries_code(path, "a Python pickle")
    raise InputError(f"{path}: neither HDF5 nor a Keras archive; give a .keras, .weights.h5 or .h5 file")


def _read_archive(path: Path) -> Stored:
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        if any(name.endswith(".pkl") for name in names):
            raise _carries_code(path, "a file of torch.save (a Python pickle)")
        if not {"config.json", "model.weights.h5"} <= names:
            raise InputError(f"{path}: a zip without config.json and model.weights.h5; give what Keras' save wrote")
        config = json.loads(_member(path, archive, "config.json"))
        if not isinstance(config, dict):
            raise ValueError("config.json is not an object")
        refuse_code(path, config)
        weights = _member(path, archive, "model.weights.h5")
        refuse_endless_heaps(weights)
        with h5py.File(io.BytesIO(weights), "r") as content:
            stored = _read_hdf5(path, content)
    return Stored(stored.layers, stored.ordered, config, "Keras archive (.keras)", stored.note)


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > LARGEST_MEMBER:
        raise InputError(f"{path}: {name} in it would unpack to more than {LARGEST_MEMBER:,} bytes; not a CancerNet")
    return archive.read(name)


def _read_hdf5(path: Path, content: h5py.File) -> Stored:
    # A link could lead to any file of this machine, so only a group in this file counts.
    inside = isinstance(content.get("model_weights", getlink=True), h5py.HardLink)
    named = content["model_weights"] if inside else content
    config, note = _json_attribute(content, "model_config"), _json_attribute(content, SOURCE_ATTRIBUTE)
    if config is not None:
        refuse_code(path, config)
    if "layer_names" not in named.attrs and "layer_names0" not in named.attrs:
        layers = read_counted_layers(content)
        return Stored(layers, ordered=False, config=config, layout="weights of Keras 3 (.weights.h5)", note=note or {})
    backend = _text(named.attrs.get("backend", ""))
    if backend in ("theano", "cntk"):
        raise InputError(
            f"{path}: saved on {backend}, whose kernels are mirrored; open it in Keras 2 on TensorFlow once"
        )
    layout = "weights of Keras 1 or 2 (.h5)" if config is None else "whole model in HDF5 (.h5)"
    return Stored(read_named_layers(named), ordered=True, config=config, layout=layout, note=note or {})


def refuse_endless_heaps(content: bytes | mmap.mmap) -> None:
    """Refuse HDF5 with a heap whose objects lead nowhere: its library would read in a circle, for ever.

    Args:
        content: The file. A heap is "GCOL", its version, its size, and objects of a number, a size and their bytes;
            number 0 is what is free, and its size is that of all of it.

    Raises:
        ValueError: An object is empty or larger than its heap.
    """
    heap = content.find(HEAP_MAGIC)
    while heap >= 0:
        place, (size,) = heap + 16, struct.unpack("<Q", content[heap + 8 : heap + 16].ljust(8, b"\0"))
        while place + 16 <= min(heap + size, len(content)):
            number, _, _, length = struct.unpack("<HHIQ", content[place : place + 16])
            step = length if number == 0 else 16 + -(-length // 8) * 8
            if not 0 < step <= size:
                raise ValueError("an object in a heap of it is empty, or larger than the heap")
            place += step
        heap = content.find(HEAP_MAGIC, heap + 1)


def refuse_code(path: Path, config: dict[str, Any]) -> None:
    """Refuse a configuration that asks for code, as a Lambda layer or a custom class.

    Nothing of a configuration is run here, but a network with such a layer is no CancerNet.

    Raises:
        InputError: Names the layer or class.
    """
    for entry in _objects(config):
        name = entry.get("class_name")
        if name in ("Lambda", "__lambda__", "TFOpLambda", "SlicingOpLambda"):
            inner = entry.get("config")
            label = inner.get("name", name) if isinstance(inner, dict) else name
            raise _carries_code(path, f"a layer with code in it ({name} {label!r})")
        registered = entry.get("registered_name")
        module = str(entry.get("module") or "keras")
        if module.split(".")[0] not in ("keras", "tf_keras", "builtins") or (registered and ">" in str(registered)):
            raise _carries_code(path, f"a custom class ({registered or name} of {module})")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield each serialised object of a configuration, without the compile settings, which are not read."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if "class_name" in item:
                yield item
            pending += [entry for key, entry in item.items() if key != "compile_config"]
        elif isinstance(item, list):
            pending += item


def _carries_code(path: Path, what: str) -> InputError:
    return InputError(
        f"{path}: {what}, which could run anything on this machine. It was not opened further; "
        "save plain weights instead (model.save_weights)"
    )


def _is_pickle(path: Path) -> bool:
    """Recognise a pickle by its first and last bytes, without loading it."""
    with path.open("rb") as file:
        first = file.read(2)
        if len(first) < 2 or first[:1] != pickle.PROTO or first[1] > pickle.HIGHEST_PROTOCOL:
            return False
        file.seek(-1, io.SEEK_END)
        return file.read(1) == pickle.STOP


def _json_attribute(content: h5py.File, name: str) -> dict[str, Any] | None:
    if name not in content.attrs:
        return None
    value = json.loads(_text(content.attrs[name]))
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)
