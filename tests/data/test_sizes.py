"""Images of any size become patches of 50x50 pixels, and what was done is said."""

import numpy as np
import pytest
from PIL import Image

from cancernet.data.audit import audit
from cancernet.data.datamodule import IDCDataModule
from cancernet.data.store.find import find_store
from cancernet.data.store.store import PatchStore
from cancernet.errors import InputError
from tests.data.drawing import draw_png, encode, patch_path, write_folder, write_zip


def halves(width: int, height: int, kind: str = "PNG") -> bytes:
    """Draw an image whose left half is dark and whose right half is bright."""
    return encode(Image.fromarray(np.repeat(np.where(np.arange(width) < width / 2, 40, 220), 3).astype(np.uint8)
                                  .reshape(1, width, 3).repeat(height, axis=0)), kind)  # fmt: skip


def packed(tmp_path, files, **given) -> PatchStore:
    return find_store(write_folder(tmp_path / "data", files), tmp_path / "cache", workers=1, **given)


@pytest.mark.parametrize("side", [48, 51, 96, 224])
def test_a_grid_of_any_size_is_resized_with_its_edge_patches(tmp_path, side):
    files = {patch_path("9000", 1 + side * column, 1, 0): halves(side, side) for column in range(5)}
    files[patch_path("9000", 1 + side * 5, 1, 0)] = halves(side // 2, side)
    files[patch_path("9000", 1, 1 + side, 1)] = halves(side + 1, side)
    store = find_store(write_zip(tmp_path / "a.zip", files), tmp_path / "cache", workers=1)
    assert store.images.shape == (6, 50, 50, 3)
    np.testing.assert_allclose(store.images[0, :, :24].astype(int), 40, atol=1)
    np.testing.assert_allclose(store.images[0, :, 26:].astype(int), 220, atol=1)
    np.testing.assert_allclose(store.images[5, :, 26:].astype(int), 220, atol=1)  # padded before it is resized
    assert store.manifest["rejects"] == [
        {"path": patch_path("9000", 1, 1 + side, 1), "reason": f"larger than {side}x{side} pixels"}
    ]
    assert audit(store).edge_patches == 1
    assert f"images of {side}x{side} pixels resized to 50x50, whatever tissue they hold" in store.understood
    assert store.index["width"].tolist() == [side] * 5 + [side // 2]


def test_an_image_without_position_is_whole_by_itself(tmp_path):
    store = packed(tmp_path, {"a.png": halves(96, 96), "b.jpg": halves(224, 224, "JPEG"), "c.png": draw_png(1)})
    assert len(store) == 3
    np.testing.assert_allclose(store.images[:2, 10, :23].astype(int), 40, atol=4)
    assert "images of 50 to 224 pixels resized to 50x50" in store.understood
    plain = packed(tmp_path / "plain", {"a.png": draw_png(1), "b.png": draw_png(2, 42, 50)})
    assert plain.understood == "data: read 2 images: class unknown, case unknown"


def test_a_given_scale_keeps_the_size_of_tissue(tmp_path):
    files = {"a.png": halves(400, 400), "b.png": halves(400, 400)[:-1] + b"\0"}
    store = packed(tmp_path, files, mpp=0.5)
    np.testing.assert_allclose(store.images[0, :, [20, 30]].astype(int)[:, 0], [[40] * 3, [220] * 3], atol=1)
    assert "hold 200 micrometres of tissue, as a patch" in store.understood
    assert store.path != packed(tmp_path, files).path
    with pytest.raises(InputError, match="packed already: give the archive itself"):
        find_store(store.path, mpp=1.0)
    assert find_store(store.path, mpp=0.5).path == store.path


def test_a_tile_of_too_little_or_too_much_tissue_is_named(tmp_path):
    narrow = packed(tmp_path, {"a.png": halves(224, 224)}, mpp=0.5)
    assert "hold 112 micrometres of tissue where a patch holds 200: they were scaled and the rest" in narrow.understood
    np.testing.assert_allclose(narrow.images[0, :28, :13].astype(int), 40, atol=1)
    assert (narrow.images[0, :, 28:] == narrow.images[0, :, 27:28]).all()
    wide = packed(tmp_path / "wide", {"a.png": halves(400, 400)}, mpp=1.0)
    assert "hold 400 micrometres of tissue where a patch holds 200: only their middle counts" in wide.understood
    np.testing.assert_allclose(wide.images[0, :, [20, 30]].astype(int)[:, 0], [[40] * 3, [220] * 3], atol=1)


@pytest.mark.parametrize(
    ("size", "mpp", "reason"),
    [
        ((24, 60), None, "1 smaller than half a patch"),
        ((199, 199), 0.5, "1 smaller than half a patch"),
        ((1025, 60), None, "larger than 1024x1024 pixels, so a region, which `cancernet map` takes"),
    ],
)
def test_what_is_no_patch_is_refused_in_one_line(tmp_path, size, mpp, reason):
    with pytest.raises(InputError, match=rf"data holds no readable patch \(.*{reason}\)"):
        packed(tmp_path, {"a.png": halves(*size)}, mpp=mpp)


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_that_is_none_is_refused(tmp_path, mpp):
    with pytest.raises(InputError, match=r"data\.mpp: expected micrometres a pixel, more than 0"):
        packed(tmp_path, {"a.png": draw_png(1)}, mpp=mpp)


def test_the_scale_belongs_to_its_root(tmp_path):
    root = write_folder(tmp_path / "data", {"a.png": halves(400, 400)})
    data = IDCDataModule(str(root), mpp=0.5, cache=str(tmp_path / "cache"), workers=1)
    data.setup("predict")
    assert data.arguments["mpp"] == 0.5
    same = IDCDataModule(str(root), cache=str(tmp_path / "cache"), workers=1)
    same.setup("predict")
    assert data.description["fingerprint"] != same.description["fingerprint"]
