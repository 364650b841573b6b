import base64
import io

import numpy as np
from PIL import Image

from cancernet.evaluation.grid import lay_out
from cancernet.evaluation.report import maps, write_report
from tests.evaluation.run_folders import edit_metrics


def read_picture(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_maps_place_each_patch_and_leave_absent_tissue_blank():
    x, y = np.array([101, 201, 151, -1]), np.array([51, 51, 151, -1])
    grid = lay_out(x, y)
    assert grid is not None
    assert (grid.columns, grid.rows) == (3, 3)
    label = np.array([0, 1, 0, 1])
    drawn = np.array(read_picture(maps.label_map(grid, label)).convert("RGBA"))
    assert drawn[..., 3].astype(bool).tolist() == [[True, False, True], [False] * 3, [False, True, False]]
    ends = [tuple(bytes.fromhex(maps.VIRIDIS[end])) for end in (0, -1)]
    assert [tuple(drawn[0, 0, :3]), tuple(drawn[0, 2, :3]), tuple(drawn[2, 1, :3])] == [ends[0], ends[1], ends[0]]
    sure = np.array(read_picture(maps.probability_map(grid, label.astype(float))).convert("RGBA"))
    np.testing.assert_array_equal(sure, drawn)  # a certain and right model draws the label map
    calls = np.array(read_picture(maps.call_map(grid, label, np.array([True, True, False, True]))).convert("RGB"))
    names = [list(maps.CALLS.values()).index(bytes(calls[cell]).hex()) for cell in ((0, 0), (0, 2), (2, 1))]
    assert names == [1, 3, 0]


def test_slide_is_stitched_from_thumbnails():
    grid = lay_out(np.array([1, 101]), np.array([1, 51]))
    assert grid is not None
    colours = np.array([[200, 60, 120], [40, 90, 160]], dtype=np.uint8)
    thumbnail = np.broadcast_to(colours[:, None, None, :], (2, 8, 8, 3)).copy()
    for reduction, size in ((1, 8), (2, 4)):
        slide = np.array(read_picture(maps.stitch_slide(grid, thumbnail, reduction)).convert("RGBA"))
        assert slide.shape == (2 * size, 3 * size, 4)
        assert not slide[:size, size:, 3].any()
        middle = size // 2
        np.testing.assert_allclose(slide[middle, middle, :3], colours[0], atol=12)
        np.testing.assert_allclose(slide[size + middle, 2 * size + middle, :3], colours[1], atol=12)


def test_positions_that_cannot_be_are_not_drawn():
    assert lay_out(np.array([-1, -1]), np.array([-1, 5])) is None
    assert lay_out(np.array([1, 10**9]), np.array([1, 1])) is None


def test_cases_without_positions_are_said_to_have_none(page):
    assert page.text.count("No map: the positions of its patches are unknown.") == 1


def test_activations_are_drawn_up_to_the_strongest_cell():
    drawn = np.array(read_picture(maps.activation_picture(np.array([[0.0, -3.0], [1.5, 3.0]]))))
    against, nothing, favour = (np.array(list(bytes.fromhex(colour)), float) for colour in maps.DIVERGING)
    np.testing.assert_array_equal(drawn[0, 0], nothing)
    np.testing.assert_array_equal(drawn[0, 1], against)
    np.testing.assert_array_equal(drawn[1, 1], favour)
    np.testing.assert_allclose(drawn[1, 0], (nothing + favour) / 2, atol=1)
    assert np.array(read_picture(maps.activation_picture(np.zeros((2, 3))))).shape == (2, 3, 3)


def test_mistakes_have_their_activations_below_them(folder, page, copy):
    shown = [attributes for tag, attributes in page.elements if tag == "img" and attributes.get("class") == "cells"]
    activations = [image for image in shown if image["alt"].startswith("what its cells add")]
    patches = [image for tag, image in page.elements if tag == "img" and image["alt"].startswith("patch of case")]
    assert len(activations) == len(patches) > 1
    assert "12 × 12 cells" in page.text
    with np.load(folder / "pictures.npz") as arrays:
        kept = {name: array for name, array in arrays.items() if name != "mistake_map"}
    np.savez(copy / "pictures.npz", **kept)
    edit_metrics(copy, sha256=None)  # as version 0.1.0 wrote it
    without = write_report(copy).read_text(encoding="utf-8")
    assert "cells adds to the score" not in without
    assert "patch of case" in without
