import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from cancernet.evaluation import bootstrap, estimates, metrics

Patches = tuple[np.ndarray, np.ndarray, np.ndarray]


def sample(patches: int = 600, cases: int = 8, digits: int | None = None, seed: int = 0) -> Patches:
    rng = np.random.default_rng(seed)
    case = rng.integers(0, cases, patches)
    label = (rng.random(patches) < 0.6 * rng.random(cases)[case]).astype(int)
    probability = 1 / (1 + np.exp(-(rng.normal(size=patches) + 2 * label - 1 + rng.normal(size=cases)[case])))
    return label, probability if digits is None else probability.round(digits), case


def tied_patches() -> st.SearchStrategy[Patches]:
    """Few patches in up to four cases on a coarse grid: one-class cases, one-class draws and ties are the rule."""
    row = st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 3))
    patches = st.lists(row, min_size=1, max_size=25)
    columns = patches.map(lambda rows: np.array(rows).T)
    return columns.map(lambda c: (c[0], c[1] / 4, c[2]))


def reference_metrics(label: np.ndarray, probability: np.ndarray, threshold: float) -> dict[str, float]:
    """All metrics by scikit-learn where it defines them, NaN elsewhere."""
    values = metrics.rates(metrics.confusion(label, probability, threshold))
    values |= dict.fromkeys(metrics.RANKS + metrics.LOSSES, float("nan"))
    if 0 < label.sum() < len(label):
        values["auroc"] = reference.roc_auc_score(label, probability)
    if label.any():
        values["average_precision"] = reference.average_precision_score(label, probability)
    if len(label):
        values["brier"] = reference.brier_score_loss(label, probability, pos_label=1)
        values["log_loss"] = reference.log_loss(label, probability, labels=[0, 1])
    return values


def by_rows(data: Patches, counts: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    """Metrics of each draw the slow obvious way: the rows of a case are repeated as often as it was drawn."""
    label, probability, case = data
    _, index = metrics.case_index(case)
    values = []
    for draw in counts:
        rows = np.repeat(np.arange(len(label)), draw[index].astype(int))
        values.append(reference_metrics(label[rows], probability[rows], threshold))
    return {name: np.array([value[name] for value in values]) for name in bootstrap.METRICS}


def assert_equal_to_rows(data: Patches, draws: int, threshold: float, seed: int = 0) -> None:
    label, probability, case = data
    names, index = metrics.case_index(case)
    counts = bootstrap.draw_cases(len(names), draws, seed)
    fast = estimates.values_of_draws(label, probability, index, counts, threshold)
    slow = by_rows(data, counts, threshold)
    assert list(fast) == list(bootstrap.METRICS)
    for name in bootstrap.METRICS:
        np.testing.assert_allclose(fast[name], slow[name], rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("digits", [None, 2, 1])
def test_draws_equal_resampled_rows(digits: int | None) -> None:
    assert_equal_to_rows(sample(digits=digits), draws=40, threshold=0.4)


@given(tied_patches(), st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_draws_equal_resampled_rows_under_ties_and_missing_classes(data: Patches, quarter: int, seed: int) -> None:
    assert_equal_to_rows(data, draws=8, threshold=quarter / 4, seed=seed)


def test_draws_do_not_depend_on_how_many_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sample(digits=2)
    whole = bootstrap.bootstrap(*data, draws=30)
    monkeypatch.setattr(estimates, "CELLS_AT_ONCE", 1)
    one_by_one = bootstrap.bootstrap(*data, draws=30)
    for name, interval in whole.items():
        assert list(vars(one_by_one[name]).values()) == pytest.approx(list(vars(interval).values()), abs=1e-12)


def test_pairwise_wins_are_mann_whitney_statistics() -> None:
    label, probability, case = sample(200, 4, digits=1)
    wins = estimates.pairwise_wins(label, probability, case, 4)
    for i in range(4):
        for j in range(4):
            positives, negatives = probability[(case == i) & (label == 1)], probability[(case == j) & (label == 0)]
            assert wins[i, j] == mannwhitneyu(positives, negatives, method="asymptotic").statistic


def test_estimates_are_those_of_all_patches_and_lie_in_their_intervals() -> None:
    label, probability, case = sample(2000, 20)
    result = bootstrap.bootstrap(label, probability, case, 0.4, draws=500)
    expected = reference_metrics(label, probability, 0.4)
    for name, interval in result.items():
        assert interval.estimate == pytest.approx(expected[name], abs=1e-12)
        assert interval.low < interval.estimate < interval.high
        assert interval.draws == 500


def test_intervals_are_percentiles_of_the_draws() -> None:
    data = sample()
    result = bootstrap.bootstrap(*data, 0.4, draws=100, seed=3, level=0.8)
    slow = by_rows(data, bootstrap.draw_cases(8, 100, 3)[1:], 0.4)
    for name, interval in result.items():
        assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(slow[name], [10, 90])))


def test_draws_are_multinomial_and_follow_the_seed() -> None:
    counts = bootstrap.draw_cases(5, 4000, 7)
    assert counts.shape == (4001, 5)
    assert (counts[0] == 1).all()
    assert (counts.sum(axis=1) == 5).all()
    assert counts[1:].mean() == pytest.approx(1)
    assert counts[1:].var() == pytest.approx(0.8, abs=0.03)
    np.testing.assert_array_equal(counts, bootstrap.draw_cases(5, 4000, 7))
    assert (counts != bootstrap.draw_cases(5, 4000, 8)).any()
    with pytest.raises(ValueError, match="draws >= 1"):
        bootstrap.draw_cases(5, 0, 0)


def test_neither_names_nor_order_of_patches_change_the_result() -> None:
    label, probability, case = sample(digits=2)
    result = bootstrap.bootstrap(label, probability, case, draws=50)
    shuffled = np.random.default_rng(1).permutation(len(label))
    names = np.array([f"case {number}" for number in case], dtype=object)
    again = bootstrap.bootstrap(label[shuffled], probability[shuffled], names[shuffled], draws=50)
    for name, interval in result.items():
        assert list(vars(again[name]).values()) == pytest.approx(list(vars(interval).values()), abs=1e-12)


def test_a_chosen_metric_is_the_same_as_among_all() -> None:
    data = sample()
    whole = bootstrap.bootstrap(*data, draws=20)
    part = bootstrap.bootstrap(*data, draws=20, metrics=("brier", "auroc"))
    assert part == {"auroc": whole["auroc"], "brier": whole["brier"]}
    with pytest.raises(ValueError, match="kappa"):
        bootstrap.bootstrap(*data, metrics=("kappa",))


def test_draws_without_a_class_are_left_out_and_counted() -> None:
    # The only IDC patch stands in case 0: (2/3)^3 of the draws, about 296, go without it.
    label, probability, case = [1, 0, 0, 0, 0], [0.9, 0.2, 0.3, 0.6, 0.1], [0, 0, 1, 1, 2]
    result = bootstrap.bootstrap(label, probability, case, draws=1000)
    missing = np.sum(bootstrap.draw_cases(3, 1000, 0)[1:, 0] == 0)
    assert 230 < missing < 360
    for name in ("auroc", "average_precision", "sensitivity", "balanced_accuracy", "mcc"):
        assert result[name].draws == 1000 - missing
    assert result["accuracy"].draws == result["brier"].draws == result["specificity"].draws == 1000
    assert result["auroc"].low == result["auroc"].high == 1.0


def test_a_metric_that_no_draw_defines_has_no_interval() -> None:
    result = bootstrap.bootstrap([0, 0, 0], [0.1, 0.2, 0.3], [0, 1, 2], draws=50)
    for name in ("auroc", "average_precision", "sensitivity", "precision", "f1", "mcc"):
        assert result[name].draws == 0
        assert np.isnan([result[name].estimate, result[name].low, result[name].high]).all()
    assert result["specificity"] == bootstrap.Interval(1.0, 1.0, 1.0, 50)


def test_five_patches_in_two_cases_are_enough_to_compute() -> None:
    result = bootstrap.bootstrap([0, 1, 0, 1, 1], [0.2, 0.8, 0.4, 0.4, 0.6], ["a", "a", "b", "b", "b"], draws=100)
    assert all(interval.draws == 100 and interval.low <= interval.high for interval in result.values())


@pytest.mark.parametrize("cases", [0, 1])
def test_fewer_than_two_cases_give_no_interval(cases: int) -> None:
    label, probability = ([0, 1, 1], [0.2, 0.8, 0.4]) if cases else ([], [])
    result = bootstrap.bootstrap(label, probability, [5] * len(label))
    difference = bootstrap.paired_difference(label, probability, probability, [5] * len(label))
    for name in bootstrap.METRICS:
        assert np.isnan([result[name].low, result[name].high, difference[name].low, difference[name].high]).all()
        assert result[name].draws == difference[name].draws == 0
        assert np.isnan(result[name].estimate) == (not cases)


def test_paired_differences_use_the_same_draws() -> None:
    label, probability, case = sample(digits=2)
    other = np.clip(probability + np.random.default_rng(5).normal(0, 0.2, len(label)), 0, 1)
    result = bootstrap.paired_difference(label, probability, other, case, 0.4, 0.6, draws=60, seed=2)
    counts = bootstrap.draw_cases(8, 60, 2)
    of_a, of_b = by_rows((label, probability, case), counts, 0.4), by_rows((label, other, case), counts, 0.6)
    for name, difference in result.items():
        assert difference.a == pytest.approx(of_a[name][0])
        assert difference.b == pytest.approx(of_b[name][0])
        assert difference.estimate == pytest.approx(difference.a - difference.b)
        ends = np.quantile((of_a[name] - of_b[name])[1:], [0.025, 0.975])
        assert (difference.low, difference.high) == pytest.approx(tuple(ends), abs=1e-12)


def test_means_over_runs_are_averaged_within_each_draw() -> None:
    label, probability, case = sample(digits=2)
    random = np.random.default_rng(5)
    runs = [np.clip(probability + random.normal(0, 0.2, len(label)), 0, 1) for _ in range(5)]
    thresholds = [0.3, 0.4, 0.5, 0.6, 0.7]
    sides = list(zip(runs, thresholds, strict=True))
    result = bootstrap.paired_mean_difference(label, sides[:2], sides[2:], case, draws=60, seed=2)
    counts = bootstrap.draw_cases(8, 60, 2)
    values = [by_rows((label, run, case), counts, at) for run, at in zip(runs, thresholds, strict=True)]
    for name, difference in result.items():
        of_a, of_b = (np.mean([run[name] for run in part], axis=0) for part in (values[:2], values[2:]))
        assert (difference.a, difference.b) == pytest.approx((of_a[0], of_b[0]))
        ends = np.quantile((of_a - of_b)[1:], [0.025, 0.975])
        assert (difference.low, difference.high) == pytest.approx(tuple(ends), abs=1e-12)


@settings(max_examples=30)
@given(tied_patches())
def test_a_prediction_does_not_differ_from_itself_and_exchange_turns_the_sign(data: Patches) -> None:
    label, probability, case = data
    same = bootstrap.paired_difference(label, probability, probability, case, draws=10)
    assert all(d.draws == 0 or d.low == d.high == 0 for d in same.values())
    forward = bootstrap.paired_difference(label, probability, 1 - probability, case, draws=10)
    backward = bootstrap.paired_difference(label, 1 - probability, probability, case, draws=10)
    for name in forward:
        assert forward[name].draws == backward[name].draws
        assert forward[name].low == pytest.approx(-backward[name].high, nan_ok=True, abs=1e-12)


def test_paired_intervals_are_narrower_than_the_spread_of_cases() -> None:
    label, probability, case = sample(4000, 20)
    other = np.clip(probability + np.random.default_rng(5).normal(0, 0.01, len(label)), 0, 1)
    alone = bootstrap.bootstrap(label, probability, case, draws=300)["auroc"]
    paired = bootstrap.paired_difference(label, probability, other, case, draws=300)["auroc"]
    assert paired.high - paired.low < (alone.high - alone.low) / 5


def test_case_mean_resamples_the_defined_cases() -> None:
    value = np.array([0.5, 0.7, np.nan, 0.9, 1.0])
    result = bootstrap.bootstrap_case_mean(value, draws=200, seed=1)
    counts = bootstrap.draw_cases(5, 200, 1)[1:].astype(int)
    means = [np.nanmean(np.repeat(value, draw)) for draw in counts if np.isfinite(np.repeat(value, draw)).any()]
    assert result.estimate == pytest.approx(np.nanmean(value))
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))
    assert result.draws == len(means)
    assert bootstrap.bootstrap_case_mean([0.4]).draws == 0
    assert np.isnan(bootstrap.bootstrap_case_mean([]).estimate)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    # Accuracy over cases whose own accuracy varies about 0.7: an interval over patches would be far too narrow.
    rng, covered = np.random.default_rng(0), 0
    for repetition in range(200):
        case = np.repeat(np.arange(40), 50)
        right = rng.random(2000) < rng.beta(7, 3, 40)[case]
        interval = bootstrap.bootstrap(
            np.ones(2000, int), right.astype(float), case, draws=200, seed=repetition, metrics=("accuracy",)
        )["accuracy"]
        covered += interval.low <= 0.7 <= interval.high
    assert 0.88 <= covered / 200 <= 0.99


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="case of shape"):
        bootstrap.bootstrap([0, 1], [0.1, 0.9], [1])
    with pytest.raises(ValueError, match="level"):
        bootstrap.bootstrap([0, 1], [0.1, 0.9], [1, 2], level=95)
    with pytest.raises(ValueError, match="shape"):
        bootstrap.bootstrap_case_mean([[1.0]])
