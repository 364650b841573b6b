import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from cancernet.evaluation.baselines import BINS, PATCHES_AT_ONCE, colour_histograms, score_baselines
from cancernet.evaluation.calibration import sigmoid
from cancernet.evaluation.thresholds import youden


def draw_patches(count: int, seed: int = 0, separation: float = 25) -> tuple[np.ndarray, np.ndarray]:
    """Patches (count, 10, 10, 3) whose IDC ones are darker by `separation` levels, and their labels."""
    random = np.random.default_rng(seed)
    label = random.integers(0, 2, count)
    base = random.normal(150, 20, (count, 1, 1, 3)) - separation * label[:, None, None, None]
    return np.clip(random.normal(base, 15, (count, 10, 10, 3)), 0, 255).astype(np.uint8), label


def test_a_histogram_counts_every_pixel_as_a_slow_count_does():
    images, _ = draw_patches(7)
    images[0] = 255
    images[1] = 0
    found = colour_histograms(lambda rows: images[rows], np.array([3, 0, 1, 6, 3]))
    for row, features in zip([3, 0, 1, 6, 3], found, strict=True):
        counts = np.zeros((BINS, BINS, BINS))
        for pixel in images[row].reshape(-1, 3) // (256 // BINS):
            counts[tuple(pixel)] += 1
        np.testing.assert_allclose(features, np.sqrt(counts.ravel() / 100), atol=1e-6)


def test_patches_are_read_a_chunk_at_a_time():
    images, _ = draw_patches(5)
    asked = []

    def gather(rows):
        asked.append(len(rows))
        return images[rows % 5]

    rows = np.arange(2 * PATCHES_AT_ONCE + 3)
    found = colour_histograms(gather, rows)
    assert asked == [PATCHES_AT_ONCE, PATCHES_AT_ONCE, 3]
    np.testing.assert_array_equal(found, found[rows % 5])


def test_scores_are_those_of_scikit_learns_own_pipeline():
    images, label = draw_patches(900)
    train, validation, test = np.split(np.random.default_rng(1).permutation(900), [500, 700])
    found = score_baselines(lambda rows: images[rows], label, train, validation, test)
    assert found is not None
    features = colour_histograms(lambda rows: images[rows], np.arange(900)).astype(np.float64)
    used = features[train].std(axis=0) >= 1e-4
    scaler = StandardScaler().fit(features[train][:, used])
    model = LogisticRegression(max_iter=1000).fit(scaler.transform(features[train][:, used]), label[train])
    expected = model.decision_function(scaler.transform(features[:, used]))
    np.testing.assert_allclose(found.logit, expected[test], atol=0.05)
    assert found.prevalence == pytest.approx(label[train].mean())
    assert roc_auc_score(label[test], found.logit) > 0.75
    chosen = youden(label[validation], sigmoid(expected[validation]).astype(np.float32))
    assert found.threshold == pytest.approx(chosen, abs=0.02)


def test_a_validation_part_of_one_class_gives_no_threshold():
    images, label = draw_patches(60)
    positives = np.flatnonzero(label)
    found = score_baselines(lambda rows: images[rows], label, np.arange(40), positives[-3:], np.arange(40, 60))
    assert found is not None
    assert found.threshold is None


def test_a_training_part_of_one_class_gives_nothing():
    images, label = draw_patches(60)
    train = np.flatnonzero(label == 0)
    assert score_baselines(lambda rows: images[rows], label, train, np.arange(5), np.arange(5, 20)) is None
    assert score_baselines(lambda rows: images[rows], label, train[:0], np.arange(5), np.arange(5, 20)) is None


def test_a_validation_part_that_is_empty_is_no_obstacle():
    images, label = draw_patches(60)
    nothing = np.empty(0, dtype=np.int64)
    found = score_baselines(lambda rows: images[rows], label, np.arange(40), nothing, np.arange(40, 60))
    assert found is not None
    assert found.logit.shape == (20,)
