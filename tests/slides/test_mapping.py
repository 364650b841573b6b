import logging

import numpy as np
import pytest
import torch
from PIL import Image

import cancernet
from cancernet.data.stains import tissue_statistics
from cancernet.errors import InputError
from cancernet.slides import mapping
from cancernet.slides.mapping import map_image
from cancernet.slides.opening import open_source
from cancernet.slides.tiles import choose_tiles, read_tiles, starts
from cancernet.slides.tissue import find_tissue, require_bright_field, shares, stain_warning
from tests.slides.drawing import draw_tissue, write_checkpoint, write_pyramid


@pytest.fixture(scope="module")
def pixels():
    return draw_tissue()


def test_patches_a_region_and_a_pyramid_agree_to_the_last_digit(predictor, pixels, tmp_path):
    region = tmp_path / "region.png"
    Image.fromarray(pixels).save(region)
    slide = write_pyramid(tmp_path / "slide.tif", pixels)
    maps = [predictor.map(source, tissue=False) for source in (pixels, region, slide)]
    patches = [pixels[top : top + 50, left : left + 50] for top in range(0, 300, 50) for left in range(0, 400, 50)]
    expected = predictor.predict(np.stack(patches)).logit
    for found in maps:
        np.testing.assert_array_equal(found.predictions.logit, expected)
        assert found.grid.shape == (6, 8)


def test_overlapping_tiles_are_averaged(predictor, pixels):
    found = predictor.map(pixels, stride=25, tissue=False)
    assert len(found.left) == 11 * 15
    at = {(x, y): value for x, y, value in zip(found.left, found.top, found.probability, strict=True)}
    cell = [at[x, y] for x in (100, 125) for y in (50, 75)]
    assert found.grid[3, 5] == pytest.approx(np.mean(cell))
    assert found.grid[0, 0] == at[0, 0]


def test_a_smaller_stride_leaves_no_cell_out_and_looks_at_no_tile_twice(predictor):
    for extent in (50, 51, 57, 58, 99, 120, 147):
        for stride in (5, 10, 25, 50):
            found = starts(extent, stride)
            assert len(set(found)) == len(found)
            assert found[-1] + 50 > extent - 25
            assert {start for start in found if start % 50 == 0} == set(starts(extent, 50).tolist())


def test_tiles_are_read_alike_in_blocks_of_any_size(pixels, monkeypatch):
    source = open_source(pixels, mpp=2.5)
    width, height = source.size_at(source.factor)
    left, top = choose_tiles(width, height, 10, np.ones((-(-height // 10), -(-width // 10))))
    for threads in (1, 3):
        tiles = np.zeros((len(left), 50, 50, 3), np.uint8)
        for numbers, read in read_tiles(source, left, top, 10, threads):
            tiles[numbers] = read
        for number in (0, 100, len(left) - 1):
            alone = source.read(source.factor, int(left[number]), int(top[number]), 50, 50)
            np.testing.assert_array_equal(tiles[number], alone)
        monkeypatch.setattr("cancernet.slides.tiles.MOST_ACROSS", 3)


def test_only_tiles_with_tissue_are_predicted(predictor, pixels):
    found = predictor.map(pixels)
    assert 0 < len(found.left) < 48
    assert np.isnan(found.grid[0, 0])
    assert found.tissue is not None
    drawn = (pixels.min(axis=2) < 200).mean() * 300 * 400 * 16e-6
    assert found.tissue_area == pytest.approx(drawn, rel=0.1)
    assert found.idc_area == pytest.approx(found.tissue_area if found.called.any() else 0, rel=0.2)


def test_a_slide_of_glass_is_refused(predictor):
    glass = draw_tissue()[:60, :60]
    with pytest.raises(InputError, match="no tissue found.*--tissue false"):
        predictor.map(glass)
    assert len(predictor.map(glass, tissue=False).left) == 4


def test_tissue_without_glass_is_tissue_all_over():
    picture = np.clip(np.random.default_rng(0).normal((190, 100, 170), 25, (200, 200, 3)), 0, 255).astype(np.uint8)
    assert find_tissue(picture, 4.0).all()


def test_specks_are_dropped_and_small_gaps_closed():
    picture = np.full((200, 200, 3), 240, np.uint8)
    picture[50:150, 50:150] = (190, 100, 170)
    picture[90:100, 90:100] = 240
    picture[10:20, 10:20] = (190, 100, 170)
    assert find_tissue(picture, 4.0).sum() == pytest.approx(100 * 100, rel=0.01)


def test_shares_add_up_to_the_mask():
    mask = np.random.default_rng(0).random((37, 53)) > 0.5
    edges_y, edges_x = np.linspace(0, 37, 6), np.linspace(0, 53, 9)
    cell = np.outer(np.diff(edges_y), np.diff(edges_x))
    assert (shares(mask, edges_y, edges_x) * cell).sum() == pytest.approx(mask.sum())


def test_fluorescence_is_refused_and_other_stains_are_warned_of(pixels):
    everything = np.ones(pixels.shape[:2], bool)
    with pytest.raises(InputError, match="nearly black, as under fluorescence"):
        require_bright_field(255 - pixels, "slide")
    assert stain_warning(pixels, find_tissue(pixels, 4.0)) is None
    brown = np.full_like(pixels, (150, 100, 60))
    for other in (brown, np.full_like(pixels, 120)):
        assert "does not look like H&E" in (stain_warning(other, everything) or "")


def test_stains_are_measured_on_the_tissue_of_the_slide(tmp_path, pixels):
    normalizing = cancernet.load(write_checkpoint(tmp_path / "stains.ckpt", stains=0.5))
    found = normalizing.map(pixels)
    tiles = np.stack([pixels[y : y + 50, x : x + 50] for x, y in zip(found.left, found.top, strict=True)])
    expected = tissue_statistics(torch.from_numpy(tiles), 0.5)
    np.testing.assert_allclose(found.stains, expected)
    np.testing.assert_array_equal(found.predictions.logit, normalizing.logits(tiles, expected))
    assert "stains were measured on its own tissue and normalised" in found.predictions.notes


def test_what_was_assumed_is_said(predictor, pixels, caplog):
    with caplog.at_level(logging.WARNING, "cancernet"):
        notes = predictor.map(pixels, tissue=False).predictions.notes
    assert notes[0] == "the file does not say its scale: the archive's, 4 micrometres a pixel, was assumed"
    assert "all tiles were predicted" in notes[-1]
    assert notes[0] in caplog.text
    assert "magnified" in predictor.map(pixels[:150, :150], mpp=8.0).predictions.notes[0]


def test_a_run_that_stopped_goes_on_where_it_was(predictor, pixels, tmp_path, monkeypatch):
    monkeypatch.setattr(predictor, "batch_size", 8)
    whole = map_image(predictor, pixels, stride=25)
    calls = []

    def stop_later(patches, stains=None):
        calls.append(len(patches))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return type(predictor).logits(predictor, patches, stains)

    monkeypatch.setattr("cancernet.slides.tiles.MOST_ACROSS", 4)
    monkeypatch.setattr(predictor, "logits", stop_later, raising=False)
    with pytest.raises(KeyboardInterrupt):
        map_image(predictor, pixels, stride=25, work=tmp_path / "work")
    done = sum(calls[:2])
    calls[:] = [0] * 10
    found = map_image(predictor, pixels, stride=25, work=tmp_path / "work")
    assert 0 < done < len(whole.left)
    assert sum(calls) == len(whole.left) - done
    np.testing.assert_array_equal(found.predictions.logit, whole.predictions.logit)
    calls[:] = [0] * 10
    map_image(predictor, pixels, stride=25, tissue=False, work=tmp_path / "work")
    assert sum(calls) > len(whole.left), "another plan starts again"


def test_the_most_certain_tiles_are_kept(predictor, pixels):
    found = predictor.map(pixels)
    order = np.argsort(-found.predictions.logit)
    called = [number for number in order if found.predictions.call[number]][: mapping.SHOWN]
    assert found.certain[: len(called)].tolist() == called
    x, y = found.left[found.certain[0]], found.top[found.certain[0]]
    np.testing.assert_array_equal(found.certain_tiles[0], pixels[y : y + 50, x : x + 50])


@pytest.mark.parametrize("stride", [0, 7, 100])
def test_a_stride_that_does_not_divide_a_patch_is_refused(predictor, pixels, stride):
    with pytest.raises(InputError, match="stride: expected one of 5, 10, 25 and 50"):
        predictor.map(pixels, stride=stride)
