from contextlib import closing

import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.uid import generate_uid

from cancernet.errors import InputError
from cancernet.slides.command import find_inputs
from cancernet.slides.opening import open_source
from cancernet.slides.source import BLOCK
from tests.slides.drawing import draw_tissue, write_dicom, write_pyramid


@pytest.fixture(scope="module")
def pixels():
    return draw_tissue()


@pytest.fixture(scope="module")
def slide(tmp_path_factory, pixels):
    return write_pyramid(tmp_path_factory.mktemp("slide") / "slide.tif", pixels)


def test_a_pyramid_gives_the_pixels_of_its_levels(slide, pixels):
    source = open_source(slide)
    assert (source.kind, source.format, source.mpp, source.mpp_from) == ("slide", "generic-tiff", 4.0, "file")
    np.testing.assert_array_equal(source.read(1.0, 30, 40, 200, 100), pixels[40:140, 30:230])
    np.testing.assert_array_equal(source.read(2.0, 10, 20, 90, 80), pixels[::2, ::2][20:100, 10:100])
    source.close()


def test_the_nearest_level_from_above_is_read(tmp_path, pixels):
    source = open_source(write_pyramid(tmp_path / "slide.tif", pixels, mpp=1.0, levels=3))
    assert [source.best_level(factor) for factor in (0.5, 1.0, 1.9, 1.999, 2.0, 3.9, 4.0, 16.0)] == [
        0,
        0,
        0,
        1,
        1,
        1,
        2,
        2,
    ]
    source.close()


def test_a_pixel_is_the_same_whatever_rectangle_it_is_read_with(pixels):
    source = open_source(pixels, mpp=1.7)
    whole = source.read(source.factor, 0, 0, 120, 90).astype(int)
    for left, top in ((0, 0), (33, 20), (70, 40)):
        part = source.read(source.factor, left, top, 50, 50)
        assert np.abs(part - whole[top : top + 50, left : left + 50]).max() <= 1


def test_reading_at_a_coarser_scale_averages(pixels):
    shown = open_source(pixels, mpp=0.5).read(8.0, 10, 10, 20, 15).astype(float)
    expected = pixels[80:200, 80:240].reshape(15, 8, 20, 8, 3).mean(axis=(1, 3))
    assert np.abs(shown - expected).mean() < 3


def test_beyond_the_edge_the_edge_is_repeated(pixels):
    source = open_source(pixels, mpp=4.0)
    tile = source.read(1.0, 380, 290, 50, 50)
    np.testing.assert_array_equal(tile[:10, :20], pixels[290:, 380:])
    assert (tile[10:, :20] == tile[9, :20]).all()
    assert (tile[:, 20:] == tile[:, 19:20]).all()


def test_an_overview_is_shrunk_to_its_side_and_never_magnified(pixels, slide):
    assert open_source(pixels).overview(100).shape == (75, 100, 3)
    assert open_source(pixels).overview(1000).shape == pixels.shape
    source = open_source(slide)
    np.testing.assert_array_equal(source.overview(200), pixels[::2, ::2])
    source.close()


def test_blocks_hold_the_same_number_of_pixels_at_every_scale(pixels):
    source = open_source(pixels, mpp=0.5)
    assert source.block_side(1.0) == BLOCK
    assert source.block_side(8.0) == BLOCK // 8


def test_a_scale_is_given_the_file_s_own_or_assumed(tmp_path, pixels, slide):
    with closing(open_source(slide, mpp=0.5)) as source:
        assert source.mpp == 0.5
    plain, printed, scanned = tmp_path / "plain.png", tmp_path / "printed.png", tmp_path / "scanned.png"
    Image.fromarray(pixels).save(plain)
    Image.fromarray(pixels).save(printed, dpi=(300, 300))
    Image.fromarray(pixels).save(scanned, dpi=(25_400 / 2, 25_400 / 2))
    found = [open_source(path) for path in (plain, printed, scanned)]
    assert [(source.mpp_from, round(source.mpp, 3)) for source in found] == [
        ("assumed", 4.0),
        ("assumed", 4.0),
        ("file", 2.0),
    ]


def test_a_slide_without_a_scale_is_refused(tmp_path, pixels):
    path = write_pyramid(tmp_path / "slide.tif", pixels, mpp=None)
    with pytest.raises(InputError, match=r"does not say its micrometres a pixel; give --mpp"):
        open_source(path)
    with closing(open_source(path, mpp=4.0)) as source:
        assert source.mpp_from == "given"


def test_a_tiff_without_tiles_is_read_at_its_own_scale(tmp_path, pixels):
    path = tmp_path / "region.tif"
    tifffile.imwrite(
        path, pixels, photometric="rgb", resolution=(5000, 5000), resolutionunit="CENTIMETER", metadata=None
    )
    source = open_source(path)
    assert source.mpp == pytest.approx(2.0)
    np.testing.assert_array_equal(source.read(1.0, 0, 0, 400, 300), pixels)
    source.close()


def test_tiffslide_reads_what_openslide_refuses(tmp_path, pixels):
    path = write_pyramid(tmp_path / "slide.tif", pixels, compression="zstd")
    source = open_source(path)
    assert source.mpp == pytest.approx(4.0)
    np.testing.assert_array_equal(source.read(1.0, 30, 40, 200, 100), pixels[40:140, 30:230])
    source.close()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("text.png", b"no image at all", "no readable image; give a whole PNG"),
        ("empty.png", b"", "give a whole PNG"),
        ("absent.png", None, "no such file"),
        ("slide.svs", b"no slide", "no readable image"),
    ],
)
def test_what_is_no_image_gets_one_line(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        open_source(path)
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


def test_a_truncated_slide_is_named_when_it_is_read(slide, tmp_path):
    path = tmp_path / "cut.tif"
    path.write_bytes(slide.read_bytes()[: slide.stat().st_size // 2])
    with pytest.raises(InputError, match=r"cut\.tif"), closing(open_source(path)) as source:
        source.read(1.0, 0, 0, 400, 300)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 18_000)).save(path)
    with pytest.raises(InputError, match="178 million pixels; save it as a tiled TIFF"):
        open_source(path)


def test_less_than_half_a_patch_is_refused(pixels, slide):
    with pytest.raises(InputError, match="less than half a patch"):
        open_source(pixels[:24])
    with pytest.raises(InputError, match="less than half a patch"):
        open_source(slide, mpp=0.05)


def test_a_series_of_dicom_files_is_one_slide(predictor, tmp_path):
    pixels = draw_tissue()
    one, other = generate_uid(), generate_uid()
    for name, step in (("a", 1), ("b", 2)):
        write_dicom(tmp_path / f"{name}.dcm", pixels[::step, ::step], one, 4.0 * step)
    write_dicom(tmp_path / "c.dcm", pixels[::-1], other, 4.0)
    (tmp_path / "d.dcm").write_bytes(b"no slide")
    assert [file.name for file in find_inputs([tmp_path])] == ["a.dcm", "c.dcm", "d.dcm"]
    with closing(open_source(tmp_path / "b.dcm")) as source:
        assert (source.format, source.mpp_from, len(source.levels)) == ("dicom", "file", 2)
    np.testing.assert_array_equal(predictor.map(tmp_path / "b.dcm").probability, predictor.map(pixels).probability)
