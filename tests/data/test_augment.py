import numpy as np
import pytest
import torch
from scipy import ndimage

from cancernet.data import augment as augmentation
from cancernet.data.augment import augment, jitter_stains, original_transforms, turn_and_flip, warp


def draw_images(count: int = 6, side: int = 50) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("recipe", ["none", "original", "modern"])
def test_images_keep_shape_and_range_and_the_seed_determines_them(recipe):
    image = draw_images()
    out = augment(image, recipe, generator(3))
    assert out.shape == image.shape
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(out, augment(image, recipe, generator(3)))
    assert torch.equal(out, augment(image, recipe, generator(4))) == (recipe == "none")


def test_identity_transform_returns_the_image():
    image = draw_images()
    identity = torch.eye(2, 3).expand(len(image), 2, 3)
    torch.testing.assert_close(warp(image, identity), image, atol=1e-5, rtol=0)


def test_warp_is_the_affine_transform_of_scipy():
    image = draw_images()
    transform = original_transforms(len(image), generator())
    out = warp(image, transform)
    center = (image.shape[-1] - 1) / 2
    for picture, matrix, warped in zip(image, transform.double().numpy(), out, strict=True):
        # Ours maps (x, y) in half sides about the centre, SciPy's (row, column) in pixels from the corner.
        linear = matrix[::-1, 1::-1]
        offset = center - linear @ [center, center] + matrix[::-1, 2] * image.shape[-1] / 2
        for channel, result in zip(picture.numpy(), warped.numpy(), strict=True):
            expected = ndimage.affine_transform(channel, linear, offset, order=1, mode="nearest")
            np.testing.assert_allclose(result, expected, atol=1e-4)


def test_transforms_stay_in_the_recipes_ranges():
    transform = original_transforms(20_000, generator()).double()
    scale = transform[:, :, :2].norm(dim=1)
    assert scale.min() >= 0.95 - 1e-6
    assert scale.max() <= 1.05 + 1e-6
    assert transform[:, :, 2].norm(dim=1).max() <= 0.2 * 2**0.5 + 1e-6
    column = transform[:, :, 0] / scale[:, :1]
    angle = torch.rad2deg(torch.atan2(column[:, 1], column[:, 0].abs())).abs()
    assert 19.5 < angle.max() <= 20 + 1e-3
    flipped = (transform[:, 0, 0] < 0).double().mean()
    assert 0.48 < flipped < 0.52


def test_each_image_is_warped_as_it_would_be_alone():
    image = draw_images()
    transform = original_transforms(len(image), generator())
    alone = torch.cat([warp(image[i : i + 1], transform[i : i + 1]) for i in range(len(image))])
    torch.testing.assert_close(warp(image, transform), alone, atol=1e-6, rtol=0)


def test_all_eight_symmetries_occur_equally_often_and_no_other():
    picture = torch.arange(27.0).view(1, 3, 3, 3)
    turned = [torch.rot90(picture, k, (2, 3)) for k in range(4)]
    symmetries = [*turned, *(image.flip(3) for image in turned)]
    out = turn_and_flip(picture.expand(8000, 3, 3, 3), generator())
    counts = [int((out == symmetry).flatten(1).all(dim=1).sum()) for symmetry in symmetries]
    assert sum(counts) == 8000
    assert min(counts) > 850


def test_stain_jitter_of_no_strength_changes_nothing(monkeypatch):
    monkeypatch.setattr(augmentation, "STAIN_SCALE", 0.0)
    monkeypatch.setattr(augmentation, "STAIN_SHIFT", 0.0)
    image = draw_images()
    torch.testing.assert_close(jitter_stains(image, generator()), image, atol=1e-5, rtol=0)


def test_stain_jitter_scales_a_pure_stain_in_optical_density():
    haematoxylin = torch.nn.functional.normalize(torch.tensor(augmentation.STAINS), dim=1)[0]
    image = ((torch.exp(-0.8 * haematoxylin) * 256 - 1) / 255).view(1, 3, 1, 1).expand(500, 3, 1, 1)
    density = -torch.log((jitter_stains(image, generator()) * 255 + 1) / 256)[:, :, 0, 0]
    amounts = density @ torch.linalg.inv(torch.nn.functional.normalize(torch.tensor(augmentation.STAINS), dim=1))
    assert (amounts[:, 0] / 0.8 - 1).abs().max() < 0.2 + 0.05 / 0.8 + 1e-3
    # Only the shift moves the stains that are not there; light cannot be brighter than white, which clips some.
    assert amounts[:, 1:].abs().max() < 0.06
