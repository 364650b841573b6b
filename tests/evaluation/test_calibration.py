import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from cancernet.evaluation import calibration
from cancernet.evaluation.values import CalibrationSummary, ReliabilityBin

Arrays = tuple[np.ndarray, np.ndarray]


def sample(slope: float = 0.5, intercept: float = -0.3, patches: int = 5000, seed: int = 0) -> Arrays:
    """Labels drawn from intercept + slope x logit: overconfident where slope < 1."""
    rng = np.random.default_rng(seed)
    logit = 3 * rng.normal(size=patches)
    return (rng.random(patches) < expit(intercept + slope * logit)).astype(int), logit


def arrays(low: int = -6) -> st.SearchStrategy[Arrays]:
    patches = st.lists(st.tuples(st.integers(0, 1), st.integers(low, 6)), min_size=2, max_size=40)
    drawn = patches.map(lambda rows: (np.array([r[0] for r in rows]), np.array([r[1] / 2 for r in rows])))
    return drawn.filter(lambda pair: 0 < pair[0].sum() < len(pair[0]))


def test_sigmoid_is_exact_in_both_tails() -> None:
    logit = np.array([-800, -700, -40, -1e-9, 0, 1, 36, 800.0])
    np.testing.assert_allclose(calibration.sigmoid(logit), expit(logit), rtol=1e-14)


@pytest.mark.parametrize("slope", [0.3, 1.0, 2.5])
def test_temperature_agrees_with_scipy(slope: float) -> None:
    label, logit = sample(slope, 0.0)
    fit = calibration.fit_temperature(label, logit)
    expected = minimize_scalar(lambda t: log_loss(label, expit(logit / t)), bounds=(0.05, 20), method="bounded")
    assert fit.value == pytest.approx(expected.x, abs=1e-4)
    assert fit.log_loss_after <= expected.fun + 1e-12
    assert fit.value == pytest.approx(1 / slope, rel=0.1)
    assert fit.log_loss_before == pytest.approx(log_loss(label, expit(logit)))
    assert not fit.bounded


@given(arrays())
def test_no_other_temperature_in_the_range_is_better(pair: Arrays) -> None:
    label, logit = pair
    fit = calibration.fit_temperature(label, logit)
    others = np.geomspace(*calibration.TEMPERATURE_BOUNDS, 50)
    losses = [calibration.log_loss_of_logit(label, logit / other) for other in others]
    assert fit.log_loss_after <= min(*losses, fit.log_loss_before) + 1e-12
    assert calibration.TEMPERATURE_BOUNDS[0] <= fit.value <= calibration.TEMPERATURE_BOUNDS[1]


@given(arrays())
def test_scaled_logits_scale_the_temperature_and_exchanged_classes_leave_it(pair: Arrays) -> None:
    label, logit = pair
    fit = calibration.fit_temperature(label, logit)
    assert calibration.fit_temperature(1 - label, -logit).value == pytest.approx(fit.value, rel=1e-6)
    doubled = calibration.fit_temperature(label, 2 * logit)
    assume(logit.any() and not (fit.bounded or doubled.bounded))
    assert doubled.value == pytest.approx(2 * fit.value, rel=1e-6)


def test_separable_logits_stop_at_the_lower_bound_and_say_so() -> None:
    for scale in (1, 1000):  # the larger one underflows: the derivative is 0 over a stretch
        fit = calibration.fit_temperature([0, 0, 1], np.array([-2.0, -1.0, 1.0]) * scale)
        assert (fit.value, fit.bounded) == (0.05, True)
        assert fit.log_loss_after <= fit.log_loss_before
    assert calibration.fit_temperature([0, 1], [-1, 1], bounds=(0.5, 2)).value == 0.5


def test_logits_worse_than_chance_stop_at_the_upper_bound_and_say_so() -> None:
    fit = calibration.fit_temperature([1, 1, 0], [-2.0, -1.0, 1.0])
    assert (fit.value, fit.bounded) == (20.0, True)


def test_logits_of_zero_have_nothing_to_scale() -> None:
    fit = calibration.fit_temperature([0, 1], [0.0, 0.0])
    assert (fit.value, fit.bounded) == (1.0, False)
    assert fit.log_loss_after == pytest.approx(np.log(2))


def test_temperature_refuses_what_it_cannot_fit() -> None:
    for label in ([], [1, 1], [0]):
        with pytest.raises(ValueError, match="needs both classes"):
            calibration.fit_temperature(label, np.zeros(len(label)))
    with pytest.raises(ValueError, match="finite logits"):
        calibration.fit_temperature([0, 1], [0.0, np.inf])
    with pytest.raises(ValueError, match="shape"):
        calibration.fit_temperature([0, 1], [0.0])
    with pytest.raises(ValueError, match="bounds"):
        calibration.fit_temperature([0, 1], [0.0, 1.0], bounds=(2, 3))
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature > 0"):
            calibration.apply_temperature([0.0], temperature)


def test_apply_temperature_divides_the_logit() -> None:
    np.testing.assert_allclose(calibration.apply_temperature([-3, 0, 3], 2.0), expit([-1.5, 0, 1.5]))


def test_bins_without_ties_are_of_equal_mass() -> None:
    rng = np.random.default_rng(0)
    probability = rng.permutation(np.linspace(0.01, 0.99, 103))
    label = (rng.random(103) < probability).astype(int)
    table = calibration.reliability(label, probability, bins=10)
    assert table.count.sum() == 103
    assert set(table.count.tolist()) == {10, 11}
    start = 0
    order = np.argsort(probability)
    for predicted, observed, count in zip(table.mean_predicted, table.observed, table.count, strict=True):
        member = order[start : start + count]
        assert predicted == pytest.approx(probability[member].mean())
        assert observed == pytest.approx(label[member].mean())
        start += count


@given(arrays(), st.integers(1, 20))
def test_bins_never_part_ties_and_lose_no_patch(pair: Arrays, bins: int) -> None:
    label, probability = pair[0], expit(pair[1])
    table = calibration.reliability(label, probability, bins)
    assert len(table.count) <= min(bins, len(np.unique(probability)))
    assert (table.count > 0).all()
    ends = np.cumsum(table.count)
    assert ends[-1] == len(label)
    ranked = np.sort(probability)
    assert all(ranked[end - 1] < ranked[end] for end in ends[:-1])
    assert (np.diff(table.mean_predicted) > 0).all()
    assert np.sum(table.observed * table.count) == pytest.approx(label.sum())
    assert ((table.low <= table.observed) & (table.observed <= table.high)).all()


def test_wilson_interval_agrees_with_scipy() -> None:
    for hits, trials in [(0, 5), (5, 5), (1, 7), (300, 1000), (1, 1)]:
        low, high = calibration.wilson_interval(hits, trials)
        expected = binomtest(hits, trials).proportion_ci(method="wilson")
        assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=1e-14)
    assert [float(end) for end in calibration.wilson_interval(0, 0)] == [0, 1]


def test_expected_calibration_error_is_the_weighted_gap() -> None:
    table = calibration.reliability([0, 1, 1, 1], [0.1, 0.1, 0.1, 0.8], bins=2)
    assert table.count.tolist() == [3, 1]
    expected = (3 * abs(0.1 - 2 / 3) + 1 * abs(0.8 - 1)) / 4
    assert calibration.expected_calibration_error(table) == pytest.approx(expected)


def test_recalibration_agrees_with_scikit_learn_and_scipy() -> None:
    label, logit = sample()
    fit = calibration.recalibrate(label, logit)
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(logit[:, None], label)
    assert fit.slope == pytest.approx(model.coef_[0, 0], abs=1e-6)
    assert fit.intercept == pytest.approx(model.intercept_[0], abs=1e-6)
    shift = minimize_scalar(lambda a: calibration.log_loss_of_logit(label, logit + a), options={"xtol": 1e-10})
    assert fit.intercept_in_the_large == pytest.approx(shift.x, abs=1e-6)


@given(arrays())
def test_recalibration_is_the_maximum_wherever_there_is_one(pair: Arrays) -> None:
    label, logit = pair
    fit = calibration.recalibrate(label, logit)
    assert calibration.sigmoid(logit + fit.intercept_in_the_large).mean() == pytest.approx(label.mean(), abs=1e-12)
    positive, negative = logit[label == 1], logit[label == 0]
    overlap = negative.max() > positive.min() and positive.max() > negative.min()
    assert np.isfinite(fit.slope) == overlap
    if overlap:  # the score equations hold
        residual = calibration.sigmoid(fit.intercept + fit.slope * logit) - label
        assert residual.mean() == pytest.approx(0, abs=1e-9)
        assert (residual * logit).mean() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_recalibration_converges_from_far(scale: float) -> None:
    label, logit = sample(patches=500)
    logit = 100 + logit
    fit = calibration.recalibrate(label, scale * logit)
    expected = minimize(
        lambda c: calibration.log_loss_of_logit(label, c[0] + c[1] * (logit - 100)), [0, 0], options={"gtol": 1e-9}
    ).x
    assert fit.slope * scale == pytest.approx(expected[1], abs=1e-5)
    assert fit.intercept == pytest.approx(expected[0] - 100 * expected[1], abs=1e-3)


def test_almost_separated_logits_converge() -> None:
    label = np.append(np.zeros(1000, int), np.ones(1000, int))
    logit = np.linspace(-10, 10, 2000)
    label[[999, 1000]] = label[[1000, 999]]
    fit = calibration.recalibrate(label, logit)
    residual = calibration.sigmoid(fit.intercept + fit.slope * logit) - label
    assert fit.slope > 10
    assert np.abs(residual @ np.stack([np.ones(2000), logit], axis=1)).max() < 1e-6


def test_recalibration_without_a_finite_answer_is_nan() -> None:
    separable = calibration.recalibrate([0, 0, 1, 1], [-1.0, 0.0, 0.0, 1.0])
    assert np.isnan([separable.slope, separable.intercept]).all()
    assert separable.intercept_in_the_large == pytest.approx(0, abs=1e-12)
    constant = calibration.recalibrate([0, 0, 0, 1], np.full(4, 2.0))
    assert np.isnan(constant.slope)
    assert constant.intercept_in_the_large == pytest.approx(np.log(1 / 3) - 2)
    for label in ([], [1, 1]):
        assert np.isnan(list(vars(calibration.recalibrate(label, np.zeros(len(label)))).values())).all()


def test_temperature_sets_a_slope_without_intercept_to_one() -> None:
    label, logit = sample(0.4, 0.0)
    temperature = calibration.fit_temperature(label, logit).value
    before = calibration.calibration_summary(label, logit)
    after = calibration.calibration_summary(label, logit, temperature)
    assert before.slope is not None
    assert after.slope == pytest.approx(before.slope * temperature)
    assert after.slope == pytest.approx(1, abs=0.01)
    for name in ("brier", "log_loss", "expected_calibration_error"):
        assert getattr(after, name) < getattr(before, name)
    assert CalibrationSummary.model_validate_json(after.model_dump_json()) == after
    assert set(ReliabilityBin.model_fields) == {"mean_predicted", "observed", "count", "low", "high"}


def test_an_empty_summary_is_undefined() -> None:
    summary = calibration.calibration_summary([], [])
    values = dict(summary)
    assert values.pop("reliability") == []
    assert values.pop("temperature") == 1.0
    assert set(values.values()) == {None}
    with pytest.raises(ValueError, match="bins >= 1"):
        calibration.reliability([0, 1], [0.1, 0.9], bins=0)
