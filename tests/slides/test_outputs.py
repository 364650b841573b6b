import json
import math
from threading import Thread

import geojson
import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile
from PIL import Image

import cancernet
from cancernet.cli import main
from cancernet.errors import InputError
from cancernet.evaluation.records import read_record
from cancernet.files import exclusive
from cancernet.slides.command import map_files
from cancernet.slides.geometry import outline
from cancernet.slides.pictures import draw_map
from cancernet.slides.predictor import Predictor
from cancernet.slides.summary import MapSummary
from tests.output import only_line
from tests.slides.drawing import draw_tissue, write_checkpoint, write_pyramid

FILES = "map.geojson map.html map.png map.tif predictions.csv predictions.parquet summary.json".split()


@pytest.fixture(scope="module")
def pixels():
    return draw_tissue()


@pytest.fixture(scope="module")
def truth(pixels, tmp_path_factory):
    """A mask of the tissue's left half, half as large as the region."""
    mask = pixels.min(axis=2) < 200
    mask[:, 200:] = False
    path = tmp_path_factory.mktemp("truth") / "mask.png"
    Image.fromarray(mask[::2, ::2]).save(path)
    return path


@pytest.fixture(scope="module")
def found(predictor, pixels, tmp_path_factory):
    slide = write_pyramid(tmp_path_factory.mktemp("slide") / "Schnitt ä '1' <b>&.tif", pixels, mpp=2.0)
    return predictor.map(slide, stride=25)


@pytest.fixture(scope="module")
def folder(found, truth, tmp_path_factory):
    return found.save(tmp_path_factory.mktemp("maps") / "map", truth)


def test_a_map_leaves_its_files_and_nothing_else(folder):
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["map"]


def test_the_table_holds_each_tile(folder, found):
    table = pd.read_csv(folder / "predictions.csv")
    assert len(table) == len(found.left)
    np.testing.assert_allclose(table["logit"], found.predictions.logit, rtol=1e-7)
    assert (table["left"] == 2 * table["x"]).all()
    assert (table["side"] == 100).all()
    pd.testing.assert_frame_equal(
        table, pd.read_parquet(folder / "predictions.parquet"), check_dtype=False, check_exact=False, rtol=1e-6
    )


def test_the_raw_map_has_the_size_of_a_cell_as_its_resolution(folder, found):
    with tifffile.TiffFile(folder / "map.tif") as file:
        page = file.pages[0]
        across, by = page.tags["XResolution"].value
        np.testing.assert_array_equal(page.asarray(), found.grid.astype(np.float32))
    assert 10_000 / (across / by) == pytest.approx(25 * 4.0)


def test_the_geojson_is_valid_and_in_pixels_of_the_finest_level(folder, found):
    content = geojson.loads((folder / "map.geojson").read_text(encoding="utf-8"))
    assert content.is_valid, content.errors()
    kinds = [feature.properties["objectType"] for feature in content.features]
    assert kinds.count("tile") == len(found.left)
    assert len({feature["id"] for feature in content.features}) == len(kinds)
    for feature in content.features:
        shape = shapely.geometry.shape(feature.geometry)
        assert shape.is_valid
        assert min(shape.bounds) >= 0
        assert shape.bounds[2] <= 400
        assert shape.bounds[3] <= 300
        for part in getattr(shape, "geoms", [shape]):
            assert part.exterior.is_ccw
            assert not any(hole.is_ccw for hole in part.interiors)
    tile = content.features[-1]
    assert tile.properties["classification"]["name"] in ("IDC", "benign")
    assert tile.properties["measurements"]["probability"] == pytest.approx(found.probability[-1], rel=1e-8)
    (idc,) = [each for each in content.features if each.properties["classification"]["name"] == "IDC"][:1]
    area = shapely.geometry.shape(idc.geometry).area * 4e-6 if idc.properties["objectType"] == "annotation" else 0
    on_slide = sum(math.prod((min(400, x + 50) - x, min(300, y + 50) - y)) for y, x in 50 * np.argwhere(found.called))
    assert area == pytest.approx(on_slide * 4e-6)


def test_an_outline_keeps_holes_and_pieces_apart():
    mask = np.zeros((6, 9), bool)
    mask[1:6, 1:6] = True
    mask[3, 3] = False
    mask[0, 8] = True
    found = outline(mask, 2.0, 18.0, 11.0)
    assert sorted(part.area for part in found.geoms) == [4.0, 24 * 4.0 - 5 * 2.0]
    assert sum(len(part.interiors) for part in found.geoms) == 1
    assert outline(np.zeros((2, 2), bool), 1.0, 2.0, 2.0).is_empty


@pytest.mark.parametrize("share", [0.03, 0.5, 0.7, 0.97])
def test_an_outline_is_the_union_of_its_cells(share):
    """Where cells touch at a corner too, around gaps and at the edges that are cut."""
    random = np.random.default_rng(0)
    for rows, columns in ((1, 1), (1, 7), (9, 4), (30, 40)):
        mask = random.random((rows, columns)) < share
        found = outline(mask, 3.0, 3.0 * columns - 1, 3.0 * rows - 2)
        row, column = np.nonzero(mask)
        right, bottom = np.minimum(3.0 * column + 3, 3.0 * columns - 1), np.minimum(3.0 * row + 3, 3.0 * rows - 2)
        union = shapely.union_all(shapely.box(3.0 * column, 3.0 * row, right, bottom))
        assert found.is_valid
        assert shapely.equals(found, union) or found.is_empty is union.is_empty is True
        assert found.area == union.area
        assert len(found.geoms) == len(shapely.get_parts(union))


def test_every_piece_of_tissue_is_outlined_in_the_picture(predictor):
    two = np.concatenate([draw_tissue(200, 200), draw_tissue(200, 200)], axis=1)
    found = predictor.map(two)
    called, tissue = draw_map(found).axes[0].collections
    assert len(tissue.get_paths()) == 4, "two pieces with a gap each"
    assert bool(called.get_paths()) == bool(found.called.any())


def test_the_summary_adds_up(folder, found):
    summary = read_record(MapSummary, folder / "summary.json", "")
    assert summary.micrometres_a_pixel == pytest.approx(2.0)
    assert summary.scale_from == "file"
    assert summary.idc_share == pytest.approx(summary.idc_area_mm2 / summary.tissue_area_mm2)
    drawn = (found.overview.min(axis=2) < 200).sum() * 4e-6
    assert summary.tissue_area_mm2 == pytest.approx(drawn, rel=0.15)
    assert "never a diagnosis" in summary.notice


def test_a_mask_is_compared_tile_by_tile_and_by_area(folder, found, pixels):
    agreement = read_record(MapSummary, folder / "summary.json", "").truth
    half = pixels.min(axis=2) < 200
    half[:, 200:] = False
    label = [
        half[2 * y : 2 * y + 100, 2 * x : 2 * x + 100].mean() > 0.5 for x, y in zip(found.left, found.top, strict=True)
    ]
    assert agreement.prevalence == pytest.approx(np.mean(label), abs=1.5 / len(label))
    ranks = pd.Series(found.probability).rank().to_numpy()
    positive = np.array(label)
    wins = ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    assert agreement.auroc == pytest.approx(wins / positive.sum() / (~positive).sum(), abs=0.1)
    (tn, fp), (fn, tp) = agreement.confusion_matrix
    assert tn + fp + fn + tp == len(found.left)
    assert fp + tp == found.predictions.call.sum()


def test_a_mask_of_another_shape_is_refused_and_nothing_is_left(found, tmp_path):
    mask = tmp_path / "mask.png"
    Image.new("L", (100, 100)).save(mask)
    with pytest.raises(InputError, match=r"--truth .*mask\.png: 100 x 100 pixels do not have the shape"):
        found.save(tmp_path / "map", mask)
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]


def test_the_page_escapes_names_and_says_what_it_is(folder, predictor, pixels, tmp_path):
    page = (folder / "map.html").read_text(encoding="utf-8")
    assert "Schnitt ä &#39;1&#39; &lt;b&gt;&amp;.tif" in page
    assert "<b>&" not in page
    assert "Research, not for diagnosis" in page
    assert "banner-synthetic" not in page
    synthetic = cancernet.load(write_checkpoint(tmp_path / "model.ckpt", synthetic=True)).map(pixels)
    text = (synthetic.save(tmp_path / "map") / "map.html").read_text(encoding="utf-8")
    assert "A program drew what trained the model." in text


def test_many_inputs_are_done_and_the_one_that_fails_is_named(checkpoint, tmp_path, capsys):
    pixels = draw_tissue(120, 150, hole=False)
    inputs = tmp_path / "in puts"
    inputs.mkdir()
    write_pyramid(inputs / "good.tif", pixels)
    Image.fromarray(pixels).save(inputs / 'góod \U0001f600 "q".png')
    (inputs / "bad.png").write_bytes(b"no image")
    (inputs / "notes.txt").write_bytes(b"not looked at")
    output = tmp_path / "maps"
    assert main(["map", str(checkpoint), str(inputs), "--output", str(output)]) == 2
    said = capsys.readouterr()
    assert "1 of 3 inputs failed" in said.err.splitlines()[-1]
    assert [line for line in said.out.splitlines() if line.startswith("failed: ") and "bad.png" in line]
    assert sorted(path.name for path in output.iterdir()) == ["good", 'góod \U0001f600 "q"']
    assert sorted(path.name for path in (output / "good").iterdir()) == FILES
    (inputs / "bad.png").unlink()
    assert main(["map", str(checkpoint), str(inputs), "--output", str(output)]) == 0
    assert capsys.readouterr().out.count("done before") == 2
    assert main(["map", str(checkpoint), str(inputs / "good.tif"), "--output", str(output), "--stride", "25"]) == 0
    assert "done before" not in capsys.readouterr().out
    assert read_record(MapSummary, output / "good" / "summary.json", "").stride == 25


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["EMPTY"], "no image or slide in this folder"),
        (["absent.svs"], "no such file"),
        (["text.png"], "no readable image"),
        (["glass.png"], "no tissue found"),
        (["small.png"], "less than half a patch"),
        (["glass.png", "small.png", "--truth", "small.png"], "belongs to one input, got 2"),
        (["glass.png", "--mpp", "-1"], "above 0"),
    ],
)
def test_what_cannot_be_mapped_gets_one_line_and_leaves_nothing(
    checkpoint, tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "text.png").write_bytes(b"text")
    Image.new("RGB", (100, 100), (240, 240, 240)).save("glass.png")
    Image.new("RGB", (100, 20), (190, 100, 170)).save("small.png")
    assert main(["map", str(checkpoint), *arguments]) == 2
    assert words in only_line(capsys)
    assert not (tmp_path / "maps").exists()


def test_what_fails_on_the_way_leaves_nothing(checkpoint, pixels, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels).save("region.png")
    monkeypatch.setattr(Predictor, "logits", lambda self, patches, stains=None: np.full(len(patches), np.nan))
    assert main(["map", str(checkpoint), "region.png"]) == 2
    assert "logits that are not finite" in only_line(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["region.png"]


def test_a_foreign_folder_is_not_written_into(checkpoint, pixels, tmp_path, capsys):
    region = tmp_path / "region.png"
    Image.fromarray(pixels).save(region)
    (tmp_path / "maps" / "region").mkdir(parents=True)
    (tmp_path / "maps" / "region" / "thesis.txt").write_text("mine")
    assert main(["map", str(checkpoint), str(region), "--output", str(tmp_path / "maps")]) == 2
    assert "was not written by map" in capsys.readouterr().err
    assert json.dumps([path.name for path in (tmp_path / "maps" / "region").iterdir()]) == '["thesis.txt"]'


def test_a_second_run_into_the_same_folder_waits_and_finds_it_done(checkpoint, pixels, tmp_path, capfd):
    Image.fromarray(pixels).save(tmp_path / "region.png")
    output = tmp_path / "maps"
    second = Thread(target=map_files, args=([checkpoint, tmp_path / "region.png"], output))
    with exclusive(output / "region"):
        second.start()
        said = ""
        while "region: another process is making it; waiting for that" not in said:
            said += capfd.readouterr().err
            assert second.is_alive()
    second.join()
    map_files([checkpoint, tmp_path / "region.png"], output)
    assert "done before" in capfd.readouterr().out
    assert [path.name for path in output.iterdir()] == ["region"]
