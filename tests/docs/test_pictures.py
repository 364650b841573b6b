"""The commands that make pictures of patches for the documentation."""

from PIL import Image

from scripts.augmentation import main as draw_augmentation
from scripts.patches import main as draw_patches
from tests.slides.drawing import draw_tissue


def test_the_picture_of_augmentations_is_made_from_an_image(tmp_path):
    Image.fromarray(draw_tissue(50, 50)).save(tmp_path / "patch.png")
    assert draw_augmentation([str(tmp_path / "patch.png"), str(tmp_path / "augmentation.png")]) == 0
    with Image.open(tmp_path / "augmentation.png") as picture:
        assert picture.size == (900, 560)
        assert len(picture.getcolors(256)) > 100


def test_the_picture_of_patches_is_made_from_an_archive(archive, store, cache, tmp_path):
    assert draw_patches([str(archive), str(tmp_path / "patches.png"), "--cache", str(cache)]) == 0
    with Image.open(tmp_path / "patches.png") as picture:
        assert picture.size == (900, 260)
        assert len(picture.getcolors(256)) > 100
