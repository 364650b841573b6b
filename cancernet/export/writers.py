"""Write a network with its metadata: one function per format. A further format needs one entry in `WRITERS`."""

import importlib
import json
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import torch
from torch import Tensor, nn

from cancernet.data.store.decode import ARCHIVE_MPP, SIDE
from cancernet.model.fused import keras
from cancernet.model.fused.network import TorchNetwork
from cancernet.model.fused.tracing import last_layer
from cancernet.model.keras_files.architecture import SCALE
from cancernet.model.keras_files.storage import SOURCE_ATTRIBUTE
from cancernet.model.registry import create_network

OPSET = 18
"""Version of the ONNX operators, of 2022: runtimes since then read the file."""
TORCHSCRIPT, WSINFER_CONFIG = "torchscript_model.pt", "config.json"
"""Files of a WSInfer model, by the names that its zoo and QuPath's extension look for."""


@dataclass(frozen=True)
class Subject:
    """A network to export.

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
        """Divisor of the logits."""
        return float(self.metadata["temperature"])

    @property
    def dtype(self) -> str:
        """Type of the input patches."""
        return str(self.metadata["input"]["dtype"])

    @property
    def text(self) -> str:
        """The metadata as JSON."""
        return json.dumps(self.metadata)


class _Calibrated(nn.Module):
    """A network and the divisor of its logits.

    Args:
        network: Images (B, 3, H, W) in [0, 1] to logits (B, classes).
        temperature: Divisor of the logits, above 0.
    """

    def __init__(self, network: TorchNetwork, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.temperature = temperature


class ServedNetwork(_Calibrated):
    """Patches (B, H, W, 3), uint8 or float32 from 0 to 255, to calibrated probabilities (B, classes).

    Args:
        network: Images (B, 3, H, W) in [0, 1] to logits (B, classes).
        temperature: Divisor of the logits, above 0.

    Examples:
        >>> served = ServedNetwork(create_network("compact", {}, size=50, classes=2), temperature=1.5)
        >>> served(torch.zeros(4, 50, 50, 3, dtype=torch.uint8)).shape
        torch.Size([4, 2])
    """

    def forward(self, image: Tensor) -> Tensor:
        """Scale, run the network, divide by the temperature, and apply softmax or sigmoid."""
        logits = self.network(image.permute(0, 3, 1, 2).float() * SCALE) / self.temperature
        return torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)


class TileNetwork(_Calibrated):
    """Tiles (B, 3, H, W), float32 in [0, 1], to two logits (B, 2) whose softmax is the calibrated probability.

    Two for a network of one unit too: QuPath's extension applies the softmax to whatever a model returns.

    Args:
        network: Images (B, 3, H, W) in [0, 1] to logits (B, classes).
        temperature: Divisor of the logits, above 0.

    Examples:
        >>> tiles = TileNetwork(create_network("compact", {}, size=50, classes=1), temperature=1.5)
        >>> tiles(torch.zeros(4, 3, 50, 50)).shape
        torch.Size([4, 2])
    """

    def forward(self, image: Tensor) -> Tensor:
        """Run the network, and divide by the temperature."""
        logits = self.network(image) / self.temperature
        return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits


def build_plain(subject: Subject) -> keras.Model:
    """Build the Keras model, channels last, with the subject's weights."""
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
    """Write a model of Keras' own layers, which plain Keras opens under any backend."""
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
    """Return the layers of a model without its final softmax or sigmoid; the model may be changed."""
    last = last_layer(plain)
    if isinstance(plain, keras.Sequential) and last is plain.layers[-1] and not isinstance(last, keras.layers.Dense):
        return plain.layers[:-1]
    if isinstance(last, keras.layers.Softmax):
        return [keras.Model(plain.inputs, last.input)]
    last.activation = keras.activations.linear
    return [plain]


def write_weights(subject: Subject, path: Path) -> None:
    """Write the weights of the plain network, for example of `CancerNet.build(...)`, without scaling or temperature."""
    build_plain(subject).save_weights(path)
    with h5py.File(path, "a") as file:
        file.attrs[SOURCE_ATTRIBUTE] = subject.text


# Where a layer turns gradients off itself, the program would contain that change, which no file can hold.
@torch.no_grad()
def write_torch(subject: Subject, path: Path) -> None:
    """Write a program for `torch.export.load`, of any batch size."""
    program = torch.export.export(
        ServedNetwork(subject.network, subject.temperature).eval(), (_example(subject),), dynamic_shapes=_free_batch()
    )
    torch.export.save(program, path, extra_files={"cancernet.json": subject.text})


@torch.no_grad()
def write_onnx(subject: Subject, path: Path) -> None:
    """Write an ONNX graph in operators of version `OPSET`, of any batch size."""
    onnx = importlib.import_module("onnx")
    program = torch.onnx.export(
        ServedNetwork(subject.network, subject.temperature).eval(),
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
    # The package's own `save_file` makes files that only their owner can read.
    path.write_bytes(save(state, metadata={"format": "pt", "cancernet": subject.text}))


@torch.no_grad()
def write_wsinfer(subject: Subject, path: Path) -> None:
    """Write a folder in WSInfer's model format: a TorchScript program and its configuration."""
    path.mkdir()
    model = TileNetwork(subject.network, subject.temperature).eval()
    tiles = torch.zeros((2, 3, subject.size, subject.size))
    with warnings.catch_warnings():
        # torch would rather have torch.export, which WSInfer and QuPath cannot read; sizes other than the batch's are
        # fixed in the program, and WSInfer resizes every tile to them.
        warnings.filterwarnings("ignore", message=".*torch.jit")
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        torch.jit.save(torch.jit.trace(model, tiles), path / TORCHSCRIPT)
    configuration = {
        "spec_version": "1.0",
        "architecture": subject.metadata["network"],
        "num_classes": 2,
        "class_names": subject.metadata["class_names"],
        "patch_size_pixels": SIDE,
        "spacing_um_px": ARCHIVE_MPP,
        "transform": [{"name": "Resize", "arguments": {"size": subject.size}}, {"name": "ToTensor"}],
        "cancernet": subject.metadata,
    }
    (path / WSINFER_CONFIG).write_text(json.dumps(configuration, indent=2) + "\n", encoding="utf-8")


def _example(subject: Subject) -> Tensor:
    # Two patches: from one, torch would conclude that the batch size is 1.
    return torch.zeros((2, subject.size, subject.size, 3), dtype=getattr(torch, subject.dtype))


def _free_batch() -> dict[str, Any]:
    return {"image": {0: torch.export.Dim("batch", min=1)}}


@dataclass(frozen=True)
class Writer:
    """A format.

    Attributes:
        suffix: Of its files.
        write: Writes one.
        packages: Those of the extra `export` that it needs.
        folder: Whether it is a folder of files, which may have any name.
    """

    suffix: str
    write: Callable[[Subject, Path], None]
    packages: tuple[str, ...] = ()
    folder: bool = False


WRITERS = {
    "keras": Writer(".keras", write_keras),
    "weights": Writer(".weights.h5", write_weights),
    "onnx": Writer(".onnx", write_onnx, ("onnx", "onnxscript")),
    "torch": Writer(".pt2", write_torch),
    "safetensors": Writer(".safetensors", write_safetensors, ("safetensors",)),
    "wsinfer": Writer(".wsinfer", write_wsinfer, folder=True),
}
