import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from cancernet.cli import main
from cancernet.data.stains import normalize_stains
from cancernet.data.training_record import TrainingRecord
from cancernet.errors import InputError
from cancernet.export import check, command
from cancernet.export.check import Agreement
from cancernet.export.command import expect, export, take_patches
from cancernet.export.metadata import move_threshold
from cancernet.export.writers import WRITERS
from cancernet.model.keras_files.weights import read_weights
from cancernet.training.checkpoints import trusted_network_config
from cancernet.training.task import ClassificationTask

TEMPERATURE, THRESHOLD = 1.7, 0.3


def write_checkpoint(path, classes=2, calibrated=True, image_size=50, **network):
    torch.manual_seed(0)
    task = ClassificationTask(classes=classes, image_size=image_size, **network)
    for module in task.network.modules():
        if hasattr(module, "running_var"):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.2, 0.6)
    checkpoint = {
        "state_dict": task.state_dict(),
        "IDCDataModule": {
            "arguments": {},
            "description": {"name": "synthetic", "split": "case", "seed": 0},
            "exposure": TrainingRecord.unknown().state() | {"known": True},
        },
    }
    task.on_save_checkpoint(checkpoint)
    if calibrated:
        checkpoint["cancernet"]["calibration"] = {"temperature": TEMPERATURE, "threshold": THRESHOLD}
    path.parent.mkdir(parents=True)
    torch.save(checkpoint, path)
    (path.parent.parent / "metrics.json").write_text(json.dumps({"checkpoint": path.name, "auroc": 0.9, "folds": None}))
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run") / "checkpoints" / "best.ckpt")


def probabilities(checkpoint, patches, temperature=TEMPERATURE):
    content = torch.load(checkpoint, weights_only=True)
    task = ClassificationTask(**trusted_network_config(content))
    task.load_state_dict(content["state_dict"])
    return expect(task.eval(), patches, temperature)


def read_metadata(form, file):
    if form == "keras":
        with zipfile.ZipFile(file) as archive:
            return json.loads(archive.read("cancernet.json"))
    if form == "weights":
        import h5py

        with h5py.File(file) as content:
            return json.loads(content.attrs["cancernet"])
    if form == "onnx":
        import onnx

        return json.loads({entry.key: entry.value for entry in onnx.load(file).metadata_props}["cancernet"])
    if form == "wsinfer":
        return json.loads((file / "config.json").read_text(encoding="utf-8"))["cancernet"]
    if form == "torch":
        extra = {"cancernet.json": ""}
        torch.export.load(file, extra_files=extra)
        return json.loads(extra["cancernet.json"])
    import safetensors

    with safetensors.safe_open(file, "numpy") as content:
        return json.loads(content.metadata()["cancernet"])


@pytest.mark.parametrize("form", WRITERS)
def test_each_format_agrees_in_its_own_runtime(checkpoint, tmp_path, form, noise, capfd):
    output = tmp_path / f"model{WRITERS[form].suffix}"
    arguments = ["--format", form, "--output", str(output), "--patches", "4"]
    assert main(["export", str(checkpoint), *arguments]) == 0
    printed = capfd.readouterr().out
    difference = float(printed.split("largest difference ")[1].split()[0])
    assert difference < 1e-6
    assert sorted(tmp_path.iterdir()) == [output], "nothing else is left"
    metadata = read_metadata(form, output)
    assert metadata["class_names"] == ["benign", "IDC"]
    assert metadata["metrics"] == {"auroc": 0.9}
    assert metadata["split"]["split"] == "case"
    assert metadata["threshold_uncalibrated"] == THRESHOLD
    assert "never a diagnosis" in metadata["notice"]
    expected = THRESHOLD if form == "weights" else move_threshold(THRESHOLD, TEMPERATURE)
    assert metadata["threshold"] == pytest.approx(expected)


OWN = {"network": "tests.model.networks.build"}
MOBILENET = {"network": "keras.applications.MobileNetV2", "network_arguments": {"alpha": 0.35}}


@pytest.mark.filterwarnings("ignore:Runs through Keras")
@pytest.mark.parametrize(
    ("form", "network"),
    [("keras", MOBILENET), ("torch", OWN), ("safetensors", OWN), ("safetensors", {"network": "compact"})],
)
def test_other_networks_agree_too(form, network, tmp_path, noise, capfd):
    other = write_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt", image_size=32, **network)
    named = ["--network", OWN["network"]] if network is OWN else []
    assert main(["export", str(other), "--format", form, "--patches", "4", *named]) == 0
    assert float(capfd.readouterr().out.split("largest difference ")[1].split()[0]) < 1e-5
    metadata = read_metadata(form, other.with_suffix(WRITERS[form].suffix))
    assert metadata["network"] == network["network"]
    assert metadata["network_arguments"] == network.get("network_arguments", {})


@pytest.mark.filterwarnings("ignore:Runs through Keras")
@pytest.mark.parametrize(
    ("form", "network", "words"),
    [
        ("torch", {"network": "tests.model.networks.build_looking"}, "perhaps because of the layers looking"),
    ],
)
def test_a_network_that_cannot_be_written_gets_one_line(form, network, words, tmp_path, noise, capfd):
    other = write_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt", image_size=16, **network)
    assert main(["export", str(other), "--format", form, "--network", network["network"]]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("cancernet: ")]
    assert words in line
    assert [path.name for path in other.parent.iterdir()] == ["best.ckpt"]


def test_probabilities_are_those_of_a_process_without_the_package(checkpoint, patches, tmp_path, agreeing, noise):
    """The script of the check, called directly; float input, one unit, 48 pixels."""
    other = write_checkpoint(tmp_path / "run" / "checkpoints" / "one.ckpt", classes=1, image_size=48)
    output = tmp_path / "model.onnx"
    export(other, "onnx", output, input="float32")
    given = patches[:, :48, :48].copy()
    np.save(tmp_path / "patches.npy", given)
    command = [sys.executable, "-I", str(check.SCRIPT), "onnx", str(output), "patches.npy", "probabilities.npy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["runtime"].startswith("onnxruntime")
    np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), probabilities(other, given), atol=1e-6)


def test_exported_keras_model_comes_back_through_convert(checkpoint, patches, tmp_path, agreeing, noise, capsys):
    export(checkpoint, "keras", tmp_path / "model.keras")
    assert main(["convert", str(tmp_path / "model.keras"), str(tmp_path / "back.ckpt")]) == 0
    back = probabilities(tmp_path / "back.ckpt", patches, temperature=1.0)
    np.testing.assert_allclose(back, probabilities(checkpoint, patches), atol=1e-6)
    export(checkpoint, "weights", tmp_path / "model.weights.h5")
    weights = read_weights(tmp_path / "model.weights.h5")
    assert (weights.image_size, weights.image_size_known) == (50, True)


def test_a_file_that_differs_is_removed_and_the_old_one_stays(checkpoint, tmp_path, noise, monkeypatch, capsys):
    output = tmp_path / "model.safetensors"
    output.write_bytes(b"old")
    monkeypatch.setattr(command, "check", lambda *arguments: [Agreement("other", 2e-4)])
    with pytest.raises(InputError, match="differs by 2.0e-04"):
        export(checkpoint, "safetensors", output)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    assert output.read_bytes() == b"old"
    assert "largest difference 2.0e-04" in capsys.readouterr().out


def test_a_difference_is_found(checkpoint, patches, tmp_path, agreeing, noise):
    export(checkpoint, "onnx", tmp_path / "model.onnx")
    shifted = probabilities(checkpoint, patches) + 0.01
    found = check.run_elsewhere("onnx", tmp_path / "model.onnx", patches, shifted)
    assert found.difference == pytest.approx(0.01, abs=1e-5)


def test_other_weights_in_safetensors_are_found(checkpoint, patches, tmp_path, agreeing, noise):
    from safetensors.torch import load_file, save_file

    file = tmp_path / "model.safetensors"
    export(checkpoint, "safetensors", file)
    expected = probabilities(checkpoint, patches)
    assert check.check("safetensors", file, patches, expected)[0].difference < 1e-6
    metadata, state = read_metadata("safetensors", file), load_file(file)
    state["classifier.bias"] += torch.tensor([0.0, 0.5])
    save_file(state, file, {"cancernet": json.dumps(metadata)})
    assert check.check("safetensors", file, patches, expected)[0].difference > 0.01


def test_without_its_runtime_nothing_is_written_unless_unchecked(checkpoint, tmp_path, noise, monkeypatch, capsys):
    monkeypatch.setattr(command, "check", lambda *arguments: [Agreement("onnxruntime", None)])
    output = tmp_path / "model.onnx"
    arguments = ["export", str(checkpoint), "--format", "safetensors", "--output", str(tmp_path / "m.safetensors")]
    assert main(arguments) == 2
    assert "onnxruntime is not installed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main([*arguments, "--unchecked"]) == 0
    assert "not checked" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]
    assert not output.exists()


def test_a_missing_runtime_is_named_by_the_script(tmp_path, patches):
    code = (
        "import runpy, sys; sys.modules['onnxruntime'] = None; sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    command = [sys.executable, "-I", "-c", code, str(check.SCRIPT), "onnx", "a.onnx", "b.npy", "c.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)) == (3, {"missing": "onnxruntime"})


def test_a_missing_package_to_write_with_is_named(checkpoint, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"onnx, onnxscript is not installed: pip install"):
        export(checkpoint, "onnx")
    assert not checkpoint.with_suffix(".onnx").exists()


def test_without_calibration_the_temperature_is_one_and_a_line_says_so(tmp_path, agreeing, noise, capsys):
    plain = write_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt", calibrated=False)
    export(plain, "safetensors")
    assert "no calibration" in capsys.readouterr().out
    metadata = read_metadata("safetensors", plain.with_suffix(".safetensors"))
    assert (metadata["calibrated"], metadata["temperature"], metadata["threshold"]) == (False, 1.0, 0.5)


def test_threshold_moves_with_the_temperature():
    logit = np.linspace(-6, 6, 1001)
    before, after = 1 / (1 + np.exp(-logit)), 1 / (1 + np.exp(-logit / TEMPERATURE))
    np.testing.assert_array_equal(before >= THRESHOLD, after >= move_threshold(THRESHOLD, TEMPERATURE))
    assert move_threshold(1.5, 2.0) == 1.5


def test_real_or_synthetic_patches(archive, cache, store):
    synthetic = take_patches(None, 5, 48, None)
    assert (synthetic.shape, synthetic.dtype) == ((5, 48, 48, 3), np.uint8)
    real = take_patches(str(archive), 3, 50, str(cache))
    np.testing.assert_array_equal(real[0], store.images[0])
    np.testing.assert_array_equal(real[-1], store.images[len(store) - 1])


@pytest.mark.parametrize(
    ("settings", "words"), [({"output": Path("a.h5")}, r"ends in \.keras"), ({"patches": 0}, "1 or more")]
)
def test_bad_settings_are_named(checkpoint, settings, words):
    with pytest.raises(InputError, match=words):
        export(checkpoint, **settings)


def test_stains_can_be_normalised_by_the_metadata_of_the_file(checkpoint, tmp_path, noise, agreeing, capfd):
    content = torch.load(checkpoint, weights_only=True)
    content["IDCDataModule"]["arguments"] = {"stain_normalization": 0.5}
    changed, output = tmp_path / "stains.ckpt", tmp_path / "model.safetensors"
    torch.save(content, changed)
    assert main(["export", str(changed), "--format=safetensors", f"--output={output}"]) == 0
    assert "normalised over their case" in capfd.readouterr().out
    described = read_metadata("safetensors", output)["input"]["stain_normalization"]
    case = np.random.default_rng(0).integers(60, 230, (5, 50, 50, 3)).astype(np.uint8)
    density = -np.log((case + 1.0) / 256)
    mean, deviation = density.mean(axis=(0, 1, 2)), density.std(axis=(0, 1, 2), ddof=1)
    reference = np.array([described["mean"], described["standard_deviation"]])
    mean, deviation = reference + described["share"] * (np.stack([mean, deviation]) - reference)
    changed_density = (density - mean) / deviation * described["standard_deviation"] + described["mean"]
    statistics = torch.tensor(np.stack([mean, deviation])).float().expand(5, 2, 3)
    image = torch.from_numpy(case).permute(0, 3, 1, 2).float() / 255
    normalised = normalize_stains(image, statistics).permute(0, 2, 3, 1).numpy() * 255
    np.testing.assert_allclose(normalised, np.clip(256 * np.exp(-changed_density) - 1, 0, 255), atol=0.01)
