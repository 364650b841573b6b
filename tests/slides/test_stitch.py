import importlib
import sys

import geojson
import numpy as np
import pytest
from PIL import Image

from cancernet.cli import main
from cancernet.data.archive.listing import SYNTHETIC_MARK
from cancernet.errors import InputError
from cancernet.evaluation.records import read_record
from cancernet.slides import extra
from cancernet.slides.opening import open_source
from cancernet.slides.summary import MapSummary
from tests.conftest import learnable_files
from tests.data.drawing import write_zip
from tests.output import only_line


@pytest.fixture(scope="module")
def folder(archive, cache, tmp_path_factory):
    output = tmp_path_factory.mktemp("stitched") / "case 7003"
    assert main(["stitch", str(archive), "--case", "7003", "--cache", str(cache), "--output", str(output)]) == 0
    return output


def test_a_stitched_slide_holds_the_pixels_of_its_patches(folder, store):
    table = store.index[store.index["case"] == "7003"]
    source = open_source(folder / "slide.tif")
    assert (source.format, source.mpp, source.factor) == ("generic-tiff", pytest.approx(4.0), 1.0)
    labels = np.asarray(Image.open(folder / "labels.png"))
    for row, patch in table.iterrows():
        pixels = source.read(1.0, patch["x"] - 1, patch["y"] - 1, 50, 50)
        np.testing.assert_array_equal(pixels, store.images[row])
        assert (labels[patch["y"] - 1, patch["x"] - 1] == 255) == bool(patch["label"])
    source.close()


def test_its_geojson_holds_a_tile_a_patch_and_the_tumour(folder, store):
    content = geojson.loads((folder / "labels.geojson").read_text(encoding="utf-8"))
    assert content.is_valid, content.errors()
    table = store.index[store.index["case"] == "7003"]
    names = [each.properties["classification"]["name"] for each in content.features[1:]]
    assert names.count("IDC") == table["label"].sum()
    assert len(names) == len(table)
    assert content.features[0].properties["objectType"] == "annotation"


def test_patches_and_the_stitched_slide_give_the_same_logits(folder, store, predictor):
    table = store.index[store.index["case"] == "7003"].sort_values(["y", "x"])
    found = predictor.map(folder / "slide.tif", tissue=False)
    np.testing.assert_array_equal(
        found.predictions.logit, predictor.predict(store.gather(table.index.to_numpy())).logit
    )


def test_labels_serve_as_the_truth_of_a_map(folder, checkpoint, tmp_path, store):
    arguments = ["--truth", str(folder / "labels.png"), "--output", str(tmp_path), "--tissue=false"]
    assert main(["map", str(checkpoint), str(folder / "slide.tif"), *arguments]) == 0
    truth = read_record(MapSummary, tmp_path / "slide" / "summary.json", "").truth
    labels = store.index.loc[store.index["case"] == "7003", "label"]
    assert truth.prevalence == pytest.approx(labels.mean())


def test_a_synthetic_slide_stays_synthetic(tmp_path, predictor):
    archive = write_zip(tmp_path / "drawn.zip", {**learnable_files(1, 2, 2), SYNTHETIC_MARK: b"{}"})
    output = tmp_path / "out"
    assert main(["stitch", str(archive), "--case=7000", f"--cache={tmp_path}", f"--output={output}"]) == 0
    assert predictor.map(output / "slide.tif", tissue=False).synthetic


def test_without_the_extra_packages_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "shapely", None)
    with pytest.raises(
        InputError, match=r"maps need shapely, which is not installed: pip install 'cancernet\[slides\]'"
    ):
        importlib.reload(extra)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--case=1"], "not in colours, which holds 7000, 7001"),
        ([], "--case: name a case of colours"),
        (["--case=7003", "--output=full"], "exists and is not empty"),
    ],
)
def test_what_cannot_be_stitched_gets_one_line(archive, cache, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_bytes(b"")
    assert main(["stitch", str(archive), f"--cache={cache}", *arguments]) == 2
    assert words in only_line(capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]
