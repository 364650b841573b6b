import json

import jsonschema
import pytest

from cancernet.cli import main
from cancernet.errors import InputError
from cancernet.export.check import run_elsewhere
from cancernet.export.command import export
from tests.export.test_export import TEMPERATURE, probabilities, write_checkpoint

SCHEMA = {
    "type": "object",
    "properties": {
        "spec_version": {"const": "1.0"},
        "architecture": {"type": "string"},
        "num_classes": {"type": "integer", "minimum": 1},
        "patch_size_pixels": {"type": "integer", "minimum": 1},
        "spacing_um_px": {"type": "number", "minimum": 0},
        "class_names": {"type": "array", "items": {"type": "string"}, "uniqueItems": True},
        "transform": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"enum": ["Resize", "ToTensor", "Normalize"]}, "arguments": {"type": "object"}},
                "additionalProperties": False,
                "required": ["name"],
            },
        },
    },
    "required": [
        *("spec_version", "architecture", "num_classes", "patch_size_pixels", "spacing_um_px", "class_names"),
        "transform",
    ],
}
"""What WSInfer's zoo asks of a configuration; scripts/interop holds one against the package itself."""


def write_folder(tmp_path, **network):
    checkpoint = write_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt", **network)
    export(checkpoint, "wsinfer", tmp_path / "model")
    return checkpoint, json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("network", ["compact", "residual"])
def test_configuration_is_as_the_zoo_asks(tmp_path, noise, agreeing, network, capfd):
    _, config = write_folder(tmp_path, network=network)
    jsonschema.validate(config, SCHEMA)
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "torchscript_model.pt"]
    assert (config["patch_size_pixels"], config["spacing_um_px"]) == (50, 4.0)
    assert config["class_names"] == ["benign", "IDC"]
    assert config["transform"][0] == {"name": "Resize", "arguments": {"size": 50}}
    assert config["cancernet"]["temperature"] == TEMPERATURE
    assert "stains" not in capfd.readouterr().out


def test_one_unit_becomes_two_logits_with_the_same_probability(tmp_path, noise, agreeing, patches):
    checkpoint, config = write_folder(tmp_path, classes=1, image_size=48)
    assert config["num_classes"] == len(config["class_names"]) == 2
    assert config["transform"][0]["arguments"] == {"size": 48}
    given = patches[:, :48, :48].copy()
    found = run_elsewhere("wsinfer", tmp_path / "model", given, probabilities(checkpoint, given))
    assert found.runtime.startswith("TorchScript")
    assert found.difference < 1e-6


def test_a_model_with_stain_normalisation_says_what_it_then_assumes(tmp_path, noise, agreeing, capfd):
    import torch

    checkpoint = write_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt", network="compact")
    content = torch.load(checkpoint, weights_only=True)
    content["IDCDataModule"]["arguments"] = {"stain_normalization": 0.5}
    torch.save(content, checkpoint)
    assert main(["export", str(checkpoint), "--format", "wsinfer"]) == 0
    assert "WSInfer leaves stains as they are" in capfd.readouterr().out
    config = json.loads((checkpoint.with_suffix(".wsinfer") / "config.json").read_text(encoding="utf-8"))
    assert config["cancernet"]["input"]["stain_normalization"]["share"] == 0.5


def test_a_folder_keeps_what_else_it_holds_and_a_file_in_its_place_is_refused(tmp_path, noise, agreeing):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")
    (tmp_path / "model" / "config.json").write_text("old")
    checkpoint, config = write_folder(tmp_path, network="compact")
    assert config["spec_version"] == "1.0"
    assert (tmp_path / "model" / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match="there is a folder; name a file"):
        (tmp_path / "model.pt2").mkdir()
        export(checkpoint, "torch", tmp_path / "model.pt2")
    with pytest.raises(InputError, match="there is a file; name a folder"):
        export(checkpoint, "wsinfer", tmp_path / "model" / "notes.txt")
