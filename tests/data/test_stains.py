import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cancernet.data import stains
from cancernet.data.stains import (
    REFERENCE_DEVIATION,
    REFERENCE_MEAN,
    STAINS,
    jitter_stains,
    measure_stains,
    normalize_stains,
    optical_density,
    transmitted,
)
from tests.data.noise import draw_images, generator


@given(st.floats(0, 1))
def test_density_there_and_back_is_the_image(value):
    image = torch.full((1, 3, 2, 2), value)
    torch.testing.assert_close(transmitted(optical_density(image)), image, atol=1e-6, rtol=0)


def test_white_has_no_density():
    assert optical_density(torch.ones(1)).item() == 0


def test_stain_jitter_of_no_strength_changes_nothing(monkeypatch):
    monkeypatch.setattr(stains, "STAIN_SCALE", 0.0)
    monkeypatch.setattr(stains, "STAIN_SHIFT", 0.0)
    image = draw_images()
    torch.testing.assert_close(jitter_stains(image, generator()), image, atol=1e-5, rtol=0)


def test_stain_jitter_scales_a_pure_stain_in_optical_density():
    haematoxylin = torch.nn.functional.normalize(torch.tensor(STAINS), dim=1)[0]
    image = transmitted(0.8 * haematoxylin).view(1, 3, 1, 1).expand(500, 3, 1, 1)
    density = optical_density(jitter_stains(image, generator()))[:, :, 0, 0]
    amounts = density @ torch.linalg.inv(torch.nn.functional.normalize(torch.tensor(STAINS), dim=1))
    assert (amounts[:, 0] / 0.8 - 1).abs().max() < 0.2 + 0.05 / 0.8 + 1e-3
    # Only the shift moves the stains that are not there; light cannot be brighter than white, which clips some.
    assert amounts[:, 1:].abs().max() < 0.06


def test_normalised_cases_meet_at_the_reference(store):
    codes = store.index["case"].factorize()[0]
    statistics = measure_stains(store, codes)
    assert statistics.shape == (store.index["case"].nunique(), 2, 3)
    pixels = torch.from_numpy(np.array(store.images)).permute(0, 3, 1, 2)
    out = optical_density(normalize_stains(pixels / 255, statistics[codes]))
    for code in np.unique(codes):
        case = out[codes == code].permute(0, 2, 3, 1).reshape(-1, 3)
        # Light brighter than white is cut off, which moves what is pale a little.
        np.testing.assert_allclose(case.mean(dim=0), REFERENCE_MEAN, atol=0.02)
        np.testing.assert_allclose(case.std(dim=0), REFERENCE_DEVIATION, atol=0.04)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_share_of_the_way_leaves_the_rest_of_the_difference(store, share):
    codes = store.index["case"].factorize()[0]
    reference = np.array([REFERENCE_MEAN, REFERENCE_DEVIATION])
    whole, part = (measure_stains(store, codes, way).numpy() for way in (1.0, share))
    np.testing.assert_allclose(part - reference, share * (whole - reference), atol=1e-6)
    image = torch.from_numpy(np.array(store.images[:4])).permute(0, 3, 1, 2) / 255
    unchanged = torch.allclose(normalize_stains(image, torch.from_numpy(part[codes[:4]])), image, atol=1e-5)
    assert unchanged == (share == 0)


def test_a_case_without_tissue_is_left_as_it_is(store):
    class Glass:
        def gather(self, rows):
            return np.full((len(rows), 50, 50, 3), 250, np.uint8)

    statistics = measure_stains(Glass(), np.zeros(5, np.int64))
    image = draw_images(1)
    torch.testing.assert_close(normalize_stains(image, statistics), image, atol=1e-5, rtol=0)


def test_a_brighter_lamp_makes_no_difference():
    """Light that is dimmed by a factor adds a constant in optical density, which normalisation takes out."""
    image = draw_images(1) * 0.8 + 0.1
    dimmed = (image * 255 + 1) * 0.8

    def own(picture):
        density = optical_density(picture).permute(0, 2, 3, 1).reshape(-1, 3)
        return normalize_stains(picture, torch.stack([density.mean(dim=0), density.std(dim=0)])[None])

    torch.testing.assert_close(own((dimmed - 1) / 255), own(image), atol=1e-4, rtol=0)
    assert not torch.allclose(image, own(image), atol=0.05)


@pytest.mark.parametrize("count", [1, 64, 1000])
def test_a_sample_of_a_case_is_enough(count):
    noise = np.random.default_rng(0).normal(150, 30, (count, 50, 50, 3)).clip(0, 255).astype(np.uint8)

    class Noise:
        def gather(self, rows):
            return noise[rows]

    density = optical_density(torch.from_numpy(noise[: min(count, 200)]).float() / 255).reshape(-1, 3)
    statistics = measure_stains(Noise(), np.zeros(count, np.int64))
    np.testing.assert_allclose(statistics[0, 0], density.mean(dim=0), atol=2e-3)
