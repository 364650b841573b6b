"""Against WSInfer itself, where CANCERNET_WSINFER names a Python that has it: see scripts/interop."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cancernet
from cancernet.data.synthetic.tissue import draw_slide
from cancernet.export import command
from cancernet.export.command import export
from tests.export.test_export import probabilities, write_checkpoint

PYTHON = os.environ.get("CANCERNET_WSINFER", "")
WRITE_SLIDE = """
import sys
import numpy, tifffile
dots = (2500, 2500)  # a centimetre: 4 micrometres a pixel
tifffile.imwrite(sys.argv[2], numpy.load(sys.argv[1]), tile=(256, 256), photometric="rgb", resolution=dots,
                 resolutionunit="CENTIMETER")
"""

pytestmark = pytest.mark.skipif(not PYTHON, reason="needs WSInfer in an environment of its own: scripts/interop")


@pytest.fixture
def run(tmp_path):
    """Run something in that environment, offline. WSInfer reads its list of published models in any case."""
    home = tmp_path / "home"
    registry = home / ".wsinfer-zoo" / "wsinfer-zoo-registry.json"
    registry.parent.mkdir(parents=True)
    registry.write_text('{"models": {}}', encoding="utf-8")

    def run(*arguments):
        done = subprocess.run(
            [PYTHON, *map(str, arguments)],
            cwd=tmp_path,
            env={
                **os.environ,
                "HOME": str(home),
                "HF_HUB_OFFLINE": "1",
                "CUDA_VISIBLE_DEVICES": "-1",
                "PYTHONPATH": "",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
        return done.stdout

    return run


@pytest.mark.parametrize("network", [{"network": "residual"}, {"classes": 1, "image_size": 48}])
def test_the_same_tiles_get_the_same_probabilities(tmp_path, run, monkeypatch, network):
    image = draw_slide(0, 0).image
    patches = np.random.default_rng(0).integers(0, 256, (4, 50, 50, 3), dtype=np.uint8)
    monkeypatch.setattr(command, "_synthetic_patches", lambda count: patches)
    checkpoint = write_checkpoint(tmp_path / "run" / "checkpoints" / "best.ckpt", **network)
    model = tmp_path / "model"
    export(checkpoint, "wsinfer", model)
    run("-m", "wsinfer_zoo", "validate-config", model / "config.json")

    slides = tmp_path / "slides"
    slides.mkdir()
    np.save(tmp_path / "slide.npy", image)
    run("-c", WRITE_SLIDE, tmp_path / "slide.npy", slides / "slide.tif")
    files = ("--model-path", model / "torchscript_model.pt", "--config", model / "config.json")
    folders = ("--wsi-dir", slides, "--results-dir", tmp_path / "results")
    run("-m", "wsinfer", "run", *folders, *files, "--num-workers", 1)

    (table,) = (pd.read_csv(path) for path in Path(tmp_path / "results").glob("model-outputs*/*.csv"))
    assert (table[["width", "height"]] == 50).all(axis=None)
    inside = (table["minx"] + 50 <= image.shape[1]) & (table["miny"] + 50 <= image.shape[0])
    table = table[inside]
    assert len(table) > 50
    tiles = np.stack([image[y : y + 50, x : x + 50] for x, y in zip(table["minx"], table["miny"], strict=True)])
    expected = probabilities(checkpoint, resize(tiles, network.get("image_size", 50)))
    difference = np.abs(table["prob_IDC"] - expected).max()
    print(f"{len(table)} tiles: {difference:.1e}")
    assert difference < 1e-4
    np.testing.assert_allclose(table["prob_benign"] + table["prob_IDC"], 1, atol=1e-6)
    if network.get("image_size", 50) == 50:  # to other sizes WSInfer scales bytes, and this project fractions
        found = cancernet.load(checkpoint).map(slides / "slide.tif")
        own = pd.DataFrame({"minx": found.left, "miny": found.top, "own": found.predictions.calibrated})
        both = table.merge(own)
        print(f"{len(both)} of {len(own)} tiles of the map: {np.abs(both['prob_IDC'] - both['own']).max():.1e}")
        assert len(both) > 50
        np.testing.assert_allclose(both["prob_IDC"], both["own"], atol=1e-4)


def resize(tiles, size):
    """As WSInfer's transform does."""
    from PIL import Image

    return np.stack(
        [np.asarray(Image.fromarray(tile).resize((size, size), Image.Resampling.BILINEAR)) for tile in tiles]
    )
