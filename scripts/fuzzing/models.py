"""Fuzzed files of models: checkpoints and what Keras saved."""

import io
import zipfile
from pathlib import Path

from scripts.fuzzing.target import Target


def make_checkpoints(folder: Path) -> Target:
    """A checkpoint, whole (first byte even), or its pickle inside a sound zip."""
    import torch

    from cancernet.checkpoints import read_checkpoint
    from cancernet.data.training_record import TrainingRecord
    from cancernet.training.checkpoints import (
        data_state,
        recorded_calibration,
        recorded_settings,
        require_same_network,
        trusted_network_config,
    )

    content = {
        "epoch": 1,
        "state_dict": {"network.a": torch.zeros(2)},
        "cancernet": {"version": "0", "network": "cancernet", "classes": 2, "image_size": 48, "calibration": {}},
        "hyper_parameters": {"optimizer": {"name": "adamw", "lr": 1e-3}},
        "IDCDataModule": {"arguments": {}, "description": {}, "exposure": TrainingRecord.unknown().state()},
    }
    file = folder / "a.ckpt"
    torch.save(content, file)
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        members = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    (pickle,) = (name for name in members if name.endswith("data.pkl"))

    def run(data: bytes) -> None:
        written = data[1:]
        if data and data[0] % 2:
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w") as archive:
                for name, member in (members | {pickle: data[1:]}).items():
                    archive.writestr(name, member)
            written = buffer.getvalue()
        file.write_bytes(written)
        read = read_checkpoint(file, mapped=False)
        trusted_network_config(read)
        require_same_network(read, {"classes": 2})
        recorded_settings(read)
        recorded_calibration(read)
        if state := data_state(read):
            TrainingRecord.from_state(state["exposure"])

    return Target(run, [b"\0" + whole, b"\1" + members[pickle]])


def make_keras(folder: Path) -> Target:
    """The configuration in a Keras archive whose weights are sound."""
    from cancernet.model.keras_files.weights import read_weights
    from cancernet.model.network import CancerNet

    model = CancerNet.build(width=8, height=8, depth=3, classes=2)
    model.save(folder / "model.keras")
    with zipfile.ZipFile(folder / "model.keras") as archive:
        config, weights = archive.read("config.json"), archive.read("model.weights.h5")
    file = folder / "a.keras"

    def run(data: bytes) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("config.json", data)
            archive.writestr("model.weights.h5", weights)
        read_weights(file)

    return Target(run, [config])


def make_hdf5(folder: Path) -> Target:
    """Weights of Keras in HDF5, whole."""
    import keras

    from cancernet.model.keras_files.weights import read_weights

    tiny = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    tiny.save_weights(folder / "tiny.weights.h5")
    tiny.save(folder / "tiny.h5")
    file = folder / "a.h5"

    def run(data: bytes) -> None:
        file.write_bytes(data)
        read_weights(file)

    return Target(run, [(folder / name).read_bytes() for name in ("tiny.weights.h5", "tiny.h5")])
