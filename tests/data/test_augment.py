import numpy as np
import pytest
import torch
from scipy import ndimage

from cancernet.data.augment import (
    OPERATIONS,
    augment,
    original_transforms,
    rotate,
    scale_and_augment,
    symmetries,
    turn_and_flip,
    warp,
)
from tests.data.noise import draw_images, generator


@pytest.mark.parametrize("operations", [[], *([name] for name in OPERATIONS), list(OPERATIONS)])
def test_images_keep_shape_and_range_and_the_seed_determines_them(operations):
    image = draw_images()
    out = augment(image, operations, generator(3))
    assert out.shape == image.shape
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(out, augment(image, operations, generator(3)))
    assert torch.equal(out, augment(image, operations, generator(4))) == (not operations)


def test_operations_are_applied_in_their_order():
    pixels = (draw_images() * 255).to(torch.uint8)
    random = generator(5)
    expected = rotate(turn_and_flip(pixels.float() / 255, random), random)
    torch.testing.assert_close(scale_and_augment(pixels, ["symmetries", "rotation"], 5), expected)


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
        # The transform maps (x, y) in half sides about the centre, SciPy's (row, column) in pixels from the corner.
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


def test_the_eight_symmetries_are_each_there_once():
    picture = torch.arange(27.0).view(1, 3, 3, 3)
    turned = [torch.rot90(picture, k, (2, 3)) for k in range(4)]
    expected = [*turned, *(image.flip(3) for image in turned)]
    found = symmetries(picture)
    assert len(found) == 8
    assert all(sum(torch.equal(image, other) for other in found) == 1 for image in expected)


def test_free_rotation_turns_by_any_angle_about_the_centre():
    """A dark spot next to the centre stays at its distance, and is found in every direction equally often."""
    side, distance = 51, 15
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    center = side // 2
    spot = torch.exp(-((row - center) ** 2 + (column - center - distance) ** 2) / 8.0)
    # Beyond the circle that the square holds, the corners show a mirror image.
    inside = torch.hypot((row - center).double(), (column - center).double()) < center
    out = rotate(spot.expand(2000, 3, side, side), generator())[:, 0] * inside
    mass = out.sum(dim=(1, 2))
    y = (out * (row - center)).sum(dim=(1, 2)) / mass
    x = (out * (column - center)).sum(dim=(1, 2)) / mass
    torch.testing.assert_close(torch.hypot(x, y), torch.full((2000,), float(distance)), atol=0.1, rtol=0)
    quarter = torch.bincount(((torch.atan2(y, x) + torch.pi) / (torch.pi / 2)).long().clamp(max=3), minlength=4)
    assert quarter.min() > 430


def test_free_rotation_shows_nothing_but_the_image():
    """Reflected at the edge, a picture of one colour stays one colour."""
    plain = torch.full((4, 3, 50, 50), 0.7)
    torch.testing.assert_close(rotate(plain, generator()), plain)
