"""One function for each format: it writes the network of a checkpoint with what a file has to carry."""

import importlib
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cancernet.errors import InputError
from cancernet.model.fused.network import TorchNetwork
from cancernet.model.fused.tracing import last_layer
from cancernet.model.keras_files.storage import SOURCE_ATTRIBUTE
from cancernet.model.registry import create_network

import keras  # isort: skip  (execution settled the backend)
import h5py  # isort: skip

OPSET = 18
"""Version of ONNX' operators: of 2022, so that runtimes of the last years read the file."""
SCALE = 1 / 255


@dataclass(frozen=True)
class Subject:
    """What is exported.

    Attributes:
        network: In evaluation mode, on the CPU.
        metadata: See `metadata.describe`.
    """

    network: TorchNetwork
    metadata: dict[str, Any]

    @property
    def size(self) -> int:
        """Side of the input in pixels."""
        return int(self.metadata["image_size"])

    @property
    def temperature(self) -> float:
        """What the logits are divided by."""
        return float(self.metadata["temperature"])

    @property
    def dtype(self) -> str:
        """Of the patches that come in."""
        return str(self.metadata["input"]["dtype"])

    @property
    def text(self) -> str:
        """The metadata as JSON."""
        return json.dumps(self.metadata)


class Served(nn.Module):
    """Patches (B, H, W, 3), uint8 or float32 from 0 to 255, to calibrated probabilities (B, classes)."""

    def __init__(self, network: TorchNetwork, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature

    def forward(self, image: Tensor) -> Tensor:
        """Scale, run the network, divide by the temperature, and turn logits into probabilities."""
        logits = self.network(image.permute(0, 3, 1, 2).float() * SCALE) / self.temperature
        return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)


def build_plain(subject: Subject) -> keras.Model:
    """Build the network in Keras, channels last, with the subject's weights."""
    present = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    name, arguments = subject.metadata["network"], subject.metadata["network_arguments"]
    try:
        network = create_network(name, arguments, subject.size, subject.network.classes)
    finally:
        keras.config.set_image_data_format(present)
    network.load_state_dict(subject.network.state_dict())
    return network.keras_model


def write_keras(subject: Subject, path: Path) -> None:
    """Write a model of stock layers, which plain Keras opens under any backend."""
    plain = build_plain(subject)
    with keras.device("cpu"):
        model = keras.Sequential(
            [
                keras.Input((subject.size, subject.size, 3), dtype=subject.dtype, name="image"),
                keras.layers.Rescaling(SCALE, name="scaling"),
                *_logits(plain),
                keras.layers.Rescaling(1 / subject.temperature, name="temperature"),
                keras.layers.Activation(subject.network.output_activation, name="probability"),
            ],
            name=plain.name,
        )
    model.save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("cancernet.json", subject.text)


def _logits(plain: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of a model without its softmax or sigmoid at the end; the model is used up."""
    last = last_layer(plain)
    if isinstance(plain, keras.Sequential) and last is plain.layers[-1] and not isinstance(last, keras.layers.Dense):
        return plain.layers[:-1]
    if isinstance(last, keras.layers.Softmax):
        return [keras.Model(plain.inputs, last.input)]
    last.activation = keras.activations.linear
    return [plain]


def write_weights(subject: Subject, path: Path) -> None:
    """Write the weights of the plain network, such as `CancerNet.build(...)`, to load: no scaling, no temperature."""
    build_plain(subject).save_weights(path)
    with h5py.File(path, "a") as file:
        file.attrs[SOURCE_ATTRIBUTE] = subject.text


# Without gradients: where a layer turns them off for itself, the change would be noted, and survives in no file.
@torch.no_grad()
def write_torch(subject: Subject, path: Path) -> None:
    """Write a program for `torch.export.load`, with any number of patches in a batch."""
    program = torch.export.export(
        Served(subject.network, subject.temperature).eval(), (_example(subject),), dynamic_shapes=_free_batch()
    )
    torch.export.save(program, path, extra_files={"cancernet.json": subject.text})


@torch.no_grad()
def write_onnx(subject: Subject, path: Path) -> None:
    """Write an ONNX graph in operators of version `OPSET`, with any number of patches in a batch."""
    onnx = importlib.import_module("onnx")
    program = torch.onnx.export(
        Served(subject.network, subject.temperature).eval(),
        (_example(subject),),
        input_names=["image"],
        output_names=["probability"],
        dynamic_shapes=_free_batch(),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {"cancernet": subject.text})
    model.doc_string = subject.metadata["notice"]
    model.producer_name, model.producer_version = "cancernet", subject.metadata["version"]
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_safetensors(subject: Subject, path: Path) -> None:
    """Write the weights under the names and in the layout of `TorchNetwork.state_dict`."""
    save = importlib.import_module("safetensors.torch").save
    state = {name: value.contiguous().clone() for name, value in subject.network.state_dict().items()}
    # Its own way of writing files leaves them readable by nobody else.
    path.write_bytes(save(state, metadata={"format": "pt", "cancernet": subject.text}))


def _example(subject: Subject) -> Tensor:
    # Two patches: from one, torch would conclude that there is always one.
    return torch.zeros((2, subject.size, subject.size, 3), dtype=getattr(torch, subject.dtype))


def _free_batch() -> dict[str, Any]:
    return {"image": {0: torch.export.Dim("batch", min=1)}}


@dataclass(frozen=True)
class Writer:
    """A format: how its files end, what writes it, and the packages that takes beyond our own dependencies."""

    suffix: str
    write: Callable[[Subject, Path], None]
    packages: tuple[str, ...] = ()

    def require(self) -> None:
        """Refuse where a package is missing.

        Raises:
            InputError: Names it and how to install it.
        """
        missing = [package for package in self.packages if find_spec(package) is None]
        if missing:
            raise InputError(f"export: {', '.join(missing)} is not installed: pip install 'cancernet[export]'")


WRITERS = {
    "keras": Writer(".keras", write_keras),
    "weights": Writer(".weights.h5", write_weights),
    "onnx": Writer(".onnx", write_onnx, ("onnx", "onnxscript")),
    "torch": Writer(".pt2", write_torch),
    "safetensors": Writer(".safetensors", write_safetensors, ("safetensors",)),
}
