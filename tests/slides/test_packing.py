import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cancernet
from cancernet.cli import main
from cancernet.slides.packing import pack_root
from tests.output import only_line
from tests.slides.drawing import draw_tissue, write_checkpoint, write_pyramid

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def region(tmp_path_factory):
    path = tmp_path_factory.mktemp("regions") / "Région 1.png"
    Image.fromarray(draw_tissue(300, 1100)).save(path)
    return path


def test_predict_takes_the_tiles_of_a_region_and_gives_the_numbers_of_map(region, tmp_path, capsys):
    checkpoint = write_checkpoint(tmp_path / "stains.ckpt", stains=0.5)
    root = ["--data.root", str(region), f"--data.cache={tmp_path / 'cache'}"]
    assert main(["predict", f"--ckpt_path={checkpoint}", *root, *QUIET]) == 0
    folder = capsys.readouterr().out.splitlines()[-1]
    table = pd.read_csv(f"{folder}/predictions.csv")
    found = cancernet.load(checkpoint).map(region)
    assert set(table["case"]) == {"Région 1"}
    np.testing.assert_array_equal(table[["x", "y"]], np.stack([found.left, found.top], axis=1))
    np.testing.assert_allclose(table["logit"], found.predictions.logit, atol=1e-5)


def test_a_slide_is_packed_once_at_each_scale(tmp_path):
    slide = write_pyramid(tmp_path / "slide.tif", draw_tissue(600, 1200), mpp=2.0)
    words = [f"--data.root={slide}", "--data.cache", str(tmp_path / "cache"), "--trainer.devices", "2"]
    first, again, other = pack_root(words), pack_root(words), pack_root([*words, "--data.mpp=4"])
    assert first == again
    assert first[:2] == ["--trainer.devices", "2"]
    assert {word.partition("=")[0] for word in other[2:]} == {"--data.root", "--data.cache"}
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize(
    "root", ["--data.root=absent.svs", "--data.root=patch.png", "--data.root", "--seed_everything=1"]
)
def test_other_roots_stay_as_they_are(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (50, 50)).save("patch.png")
    assert pack_root([root, "--trainer.devices=2"]) == [root, "--trainer.devices=2"]


def test_a_region_of_glass_gets_one_line_and_leaves_no_store(checkpoint, tmp_path, capsys):
    Image.new("RGB", (1100, 60), (240, 240, 240)).save(tmp_path / "glass.png")
    root = [f"--data.root={tmp_path / 'glass.png'}", f"--data.cache={tmp_path / 'cache'}"]
    assert main(["predict", f"--ckpt_path={checkpoint}", *root, *QUIET]) == 2
    assert "no tissue found" in only_line(capsys)
    assert not list((tmp_path / "cache").iterdir())
