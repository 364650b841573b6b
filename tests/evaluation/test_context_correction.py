import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from cancernet.errors import InputError
from cancernet.evaluation.calibration import log_loss_of_logit, sigmoid
from cancernet.evaluation.context.correction import correction, features, fit_correction, gather_neighbours


def place(columns, rows):
    return 1 + 50 * np.asarray(columns), 1 + 50 * np.asarray(rows)


def brute(logit, case, column, row, rings):
    """Neighbours cell by cell, with the mean where patches share one; cells below 0 are unknown."""
    count, total = np.zeros((len(logit), rings)), np.zeros((len(logit), rings))
    for i in range(len(logit)):
        for ring in range(1, rings + 1):
            cells = {}
            for j in range(len(logit)):
                apart = max(abs(column[i] - column[j]), abs(row[i] - row[j]))
                if case[i] == case[j] and apart == ring and column[i] >= 0 and column[j] >= 0:
                    cells.setdefault((column[j], row[j]), []).append(logit[j])
            count[i, ring - 1] = len(cells)
            total[i, ring - 1] = sum(np.mean(values) for values in cells.values())
    return count, total


patches = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(-1, 6), st.integers(0, 6), st.floats(-9, 9)), min_size=1, max_size=40
)


@given(patches, st.sampled_from([1, 2]))
@settings(max_examples=60)
def test_neighbours_are_those_of_a_loop(drawn, rings):
    case, column, row, logit = (np.array(values) for values in zip(*drawn, strict=True))
    x, y = place(column, row)
    for found, expected in zip(
        gather_neighbours(logit, case, x, y, rings), brute(logit, case, column, row, rings), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_features_are_the_terms_of_the_formula():
    count, total = np.array([[8.0, 16.0], [4.0, 0.0]]), np.array([[16.0, -16.0], [2.0, 0.0]])
    np.testing.assert_array_equal(features([3.0, -2.0], count, total, 0), [[3, 2, 3, -1], [-1, 0.25, 0, 0]])
    np.testing.assert_array_equal(features([3.0, -2.0], count, total, 1), [[2, 1, 2, -2], [-1.5, -0.25, 0, 0]])


@given(patches, st.sampled_from([1, 2]), st.integers(0, 2**31))
@settings(max_examples=40)
def test_without_neighbours_nothing_is_added(drawn, rings, seed):
    alone = {entry[:3]: entry for entry in drawn}.values()
    case, column, row, logit = (np.array(values) for values in zip(*alone, strict=True))
    x, y = place((rings + 1) * column, (rings + 1) * row)
    found = gather_neighbours(logit, case, x, y, rings)
    added = correction(logit, *found, 0.3, np.random.default_rng(seed).normal(0, 5, (rings, 2)))
    assert (added == 0).all()


@given(patches, st.sampled_from([1, 2]))
@settings(max_examples=40)
def test_patches_far_away_say_nothing(drawn, rings):
    near = [entry for entry in drawn if entry[1] >= 0]
    if not near:
        return
    case, column, row, logit = (np.array(values) for values in zip(*near, strict=True))
    far = gather_neighbours(
        np.append(logit, logit + 3),
        np.append(case, case),
        *place(np.append(column, column + 6 + rings + 1), np.append(row, row)),
        rings,
    )
    alone = gather_neighbours(logit, case, *place(column, row), rings)
    for with_far, without in zip(far, alone, strict=True):
        np.testing.assert_array_equal(with_far[: len(logit)], without)


def draw_scores(seed, side=40, holes=0.3):
    """Log-odds on a grid with holes, and their neighbours in two rings."""
    random = np.random.default_rng(seed)
    column, row = (axis.ravel() for axis in np.meshgrid(np.arange(side), np.arange(side)))
    kept = random.uniform(size=len(column)) >= holes
    logit = random.normal(-0.5, 1.5, kept.sum())
    return logit, *gather_neighbours(logit, np.zeros(len(logit)), *place(column[kept], row[kept]), 2)


@pytest.mark.parametrize("ridge", [0.3, 1.0, 40.0])
def test_fit_is_the_minimum_that_scipy_finds(ridge):
    logit, count, total = draw_scores(1)
    label = (np.random.default_rng(2).uniform(size=len(logit)) < sigmoid(logit + total[:, 0] / 4)).astype(int)
    spread = logit[count.sum(axis=1) > 0].std()

    def loss(coefficients):
        odds = logit + correction(logit, count, total, -0.7, coefficients.reshape(2, 2))
        # The ridge weighs what the coefficients are of scores in standard deviations.
        return np.logaddexp(0, np.where(label == 1, -odds, odds)).sum() + ridge / 2 * np.sum(
            (coefficients * spread) ** 2
        )

    fitted = fit_correction(label, logit, count, total, -0.7, ridge).ravel()
    expected = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-6})
    assert loss(fitted) <= expected.fun + 1e-9
    np.testing.assert_allclose(fitted, expected.x, atol=1e-3)


def test_fit_is_that_of_scikit_learn_where_the_offset_can_be_absorbed():
    # With all 8 neighbours there, and t = 0, z + u z + w m is an ordinary regression on z and m.
    logit, count, total = (values[:, :1] if values.ndim == 2 else values for values in draw_scores(3, holes=0.0))
    inside = count[:, 0] == 8
    logit, count, total = logit[inside], count[inside], total[inside]
    label = (np.random.default_rng(4).uniform(size=len(logit)) < sigmoid(logit + total[:, 0] / 8)).astype(int)
    reference = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000)
    reference.fit(np.stack([logit, total[:, 0] / 8], axis=1), label)
    u, w = fit_correction(label, logit, count, total, 0.0, ridge=0.0)[0]
    np.testing.assert_allclose([1 + u, w], reference.coef_[0], atol=1e-4)


def test_fit_recovers_what_labels_were_drawn_from():
    logit, count, total = draw_scores(5, side=220)
    truth = np.array([[-0.3, 0.9], [0.1, 0.6]])
    odds = logit + correction(logit, count, total, -0.5, truth)
    label = (np.random.default_rng(6).uniform(size=len(logit)) < sigmoid(odds)).astype(int)
    np.testing.assert_allclose(fit_correction(label, logit, count, total, -0.5), truth, atol=0.25)


def draw_regions(seed, side=50):
    """A slide whose labels are regions, with a lot of noise in the scores."""
    random = np.random.default_rng(seed)
    field = gaussian_filter(random.normal(size=(side, side)), 4).ravel()
    label = (field > np.quantile(field, 0.7)).astype(int)
    column, row = (axis.ravel() for axis in np.meshgrid(np.arange(side), np.arange(side)))
    kept = random.uniform(size=side**2) < 0.9
    logit = 1.3 * (2 * label - 1) - 0.8 + random.normal(0, 1.7, side**2)
    return label[kept], logit[kept], *place(column[kept], row[kept])


@pytest.mark.parametrize(("rings", "margin"), [(1, 0.06), (2, 0.07)])
def test_context_beats_patches_on_slides_with_regions(rings, margin):
    slides = [draw_regions(seed) for seed in (7, 8)]
    found = [gather_neighbours(logit, np.zeros(len(logit)), x, y, rings) for _, logit, x, y in slides]
    coefficients = fit_correction(*slides[0][:2], *found[0], -0.8)
    label, logit = slides[1][:2]
    corrected = logit + correction(logit, *found[1], -0.8, coefficients)
    assert roc_auc_score(label, sigmoid(corrected)) > roc_auc_score(label, sigmoid(logit)) + margin
    assert log_loss_of_logit(label, corrected) < log_loss_of_logit(label, logit) - 0.1


@pytest.mark.parametrize("rings", [1, 2])
def test_scores_that_hardly_spread_are_not_ranked_by_their_number_of_neighbours(rings):
    # As an early checkpoint gives them: the ranks are worth something, the size is not, and no temperature mends it.
    slides = [(label, 1e-4 * logit - 1, x, y) for label, logit, x, y in map(draw_regions, (7, 8))]
    found = [gather_neighbours(logit, np.zeros(len(logit)), x, y, rings) for _, logit, x, y in slides]
    coefficients = fit_correction(*slides[0][:2], *found[0], -1.0)
    label, logit = slides[1][:2]
    corrected = logit + correction(logit, *found[1], -1.0, coefficients)
    assert roc_auc_score(label, sigmoid(corrected)) > roc_auc_score(label, sigmoid(logit))


@pytest.mark.parametrize("rings", [1, 2])
def test_what_one_slide_holds_is_not_carried_to_the_next(rings):
    """Fitted on a slide with much carcinoma and on one with little: a uniform region at the threshold stays there."""
    _, logit, x, y = draw_regions(7)
    count, total = gather_neighbours(np.full(len(logit), 0.3), np.zeros(len(logit)), x, y, rings)
    for share in (0.1, 0.9):
        label = (logit > np.quantile(logit, 1 - share)).astype(int)
        coefficients = fit_correction(label, logit, *gather_neighbours(logit, 0 * logit, x, y, rings), 0.3)
        np.testing.assert_allclose(correction(np.full(len(logit), 0.3), count, total, 0.3, coefficients), 0, atol=1e-12)


def test_fit_refuses_what_cannot_carry_it():
    logit, count, total = draw_scores(9, side=20)
    label = np.arange(len(logit)) % 2
    with pytest.raises(InputError, match="none of the .* has a neighbour"):
        fit_correction(label, logit, 0 * count, 0 * total, 0.0)
    with pytest.raises(InputError, match="0 IDC and"):
        fit_correction(0 * label, logit, count, total, 0.0)
    with pytest.raises(InputError, match="4 coefficients need 40 of each"):
        fit_correction(label[:70], logit[:70], count[:70], total[:70], 0.0)
