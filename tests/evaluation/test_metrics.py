from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from cancernet.evaluation import metrics
from cancernet.evaluation.estimates import estimates
from cancernet.evaluation.metrics import Confusion

Arrays = tuple[np.ndarray, np.ndarray]


def arrays(both_classes: bool = True, min_size: int = 2) -> st.SearchStrategy[Arrays]:
    """Labels and probabilities on a coarse grid, so that ties are the rule."""
    patches = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=min_size, max_size=40)
    drawn = patches.map(lambda rows: (np.array([r[0] for r in rows]), np.array([r[1] / 8 for r in rows])))
    return drawn.filter(lambda pair: 0 < pair[0].sum() < len(pair[0])) if both_classes else drawn


def sample(patches: int = 3000, seed: int = 0, digits: int | None = None) -> Arrays:
    rng = np.random.default_rng(seed)
    label = (rng.random(patches) < 0.3).astype(int)
    probability = 1 / (1 + np.exp(-(rng.normal(size=patches) + 1.5 * label - 1)))
    return label, probability if digits is None else probability.round(digits)


def estimate(name: str, label: Any, probability: Any) -> float:
    return estimates(label, probability, metrics=[name])[name]


REFERENCES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], float]] = {
    "accuracy": lambda y, p, c: reference.accuracy_score(y, c),
    "balanced_accuracy": lambda y, p, c: reference.balanced_accuracy_score(y, c),
    "precision": lambda y, p, c: reference.precision_score(y, c),
    "sensitivity": lambda y, p, c: reference.recall_score(y, c),
    "specificity": lambda y, p, c: reference.recall_score(y, c, pos_label=0),
    "npv": lambda y, p, c: reference.precision_score(y, c, pos_label=0),
    "f1": lambda y, p, c: reference.f1_score(y, c),
    "mcc": lambda y, p, c: reference.matthews_corrcoef(y, c),
    "prevalence": lambda y, p, c: float(np.mean(y)),
    "auroc": lambda y, p, c: reference.roc_auc_score(y, p),
    "average_precision": lambda y, p, c: reference.average_precision_score(y, p),
    "brier": lambda y, p, c: reference.brier_score_loss(y, p),
    "log_loss": lambda y, p, c: reference.log_loss(y, p),
}


@pytest.mark.parametrize("digits", [None, 1])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_metrics_agree_with_scikit_learn(digits: int | None, threshold: float) -> None:
    label, probability = sample(digits=digits)
    called = (probability >= threshold).astype(int)
    counts = metrics.confusion(label, probability, threshold)
    values = {**metrics.rates(counts), **estimates(label, probability, threshold)}
    for name, compute in REFERENCES.items():
        assert values[name] == pytest.approx(compute(label, probability, called), abs=1e-12), name
    expected = reference.confusion_matrix(label, called)
    assert list(counts) == expected.ravel().tolist()
    assert [list(row) for row in counts.matrix] == expected.tolist()
    assert (sum(counts), counts.fn + counts.tp) == (len(label), label.sum())


@given(arrays())
def test_areas_agree_with_references_under_ties(pair: Arrays) -> None:
    label, probability = pair
    positives, negatives = probability[label == 1], probability[label == 0]
    wins = mannwhitneyu(positives, negatives, method="asymptotic").statistic
    assert estimate("auroc", label, probability) == pytest.approx(wins / (len(positives) * len(negatives)), abs=1e-14)
    assert estimate("auroc", label, probability) == pytest.approx(
        reference.roc_auc_score(label, probability), abs=1e-12
    )
    expected = reference.average_precision_score(label, probability)
    assert estimate("average_precision", label, probability) == pytest.approx(expected, abs=1e-12)


@given(arrays())
def test_areas_depend_on_order_alone(pair: Arrays) -> None:
    label, probability = pair
    bent = probability**3 / 2
    assert estimate("auroc", label, bent) == estimate("auroc", label, probability)
    assert estimate("average_precision", label, bent) == estimate("average_precision", label, probability)


@given(arrays())
def test_exchanging_the_classes_exchanges_the_rates(pair: Arrays) -> None:
    label, probability = pair
    assert estimate("auroc", 1 - label, 1 - probability) == estimate("auroc", label, probability)
    assert estimate("auroc", 1 - label, probability) == pytest.approx(
        1 - estimate("auroc", label, probability), abs=1e-15
    )
    assert estimate("brier", 1 - label, 1 - probability) == pytest.approx(estimate("brier", label, probability))
    tn, fp, fn, tp = metrics.confusion(label, probability)
    before, after = metrics.rates(Confusion(tn, fp, fn, tp)), metrics.rates(Confusion(tp, fn, fp, tn))
    for name, mirrored in [("sensitivity", "specificity"), ("precision", "npv"), ("mcc", "mcc")]:
        assert after[name] == pytest.approx(before[mirrored], nan_ok=True)


@given(arrays(both_classes=False, min_size=0), st.integers(0, 9))
def test_rates_are_nan_exactly_where_the_quotient_has_no_denominator(pair: Arrays, eighth: int) -> None:
    label, probability = pair
    counts = metrics.confusion(label, probability, eighth / 8)
    tn, fp, fn, tp = counts
    values = metrics.rates(counts)
    undefined = {
        "accuracy": not len(label),
        "balanced_accuracy": not (tp + fn and tn + fp),
        "precision": not tp + fp,
        "sensitivity": not tp + fn,
        "specificity": not tn + fp,
        "npv": not tn + fn,
        "f1": not tp + fp + fn,
        "mcc": not (tp + fp and tp + fn and tn + fp and tn + fn),
        "prevalence": not len(label),
    }
    assert {name: bool(np.isnan(value)) for name, value in values.items()} == undefined
    assert all(np.isnan(value) or -1 <= value <= 1 for value in values.values())


def test_a_patch_on_the_threshold_is_positive() -> None:
    assert metrics.confusion([0, 0, 1, 1], [0.49, 0.5, 0.5, 0.51]) == Confusion(tn=1, fp=1, fn=0, tp=2)


def test_single_precision_and_booleans_are_read_exactly() -> None:
    probability = np.array([0.1, 0.7, 0.7, 0.9], dtype=np.float32)
    chosen = float(probability[1])
    assert metrics.confusion(np.array([False, False, True, True]), probability, chosen) == Confusion(1, 1, 0, 2)


def test_empty_and_one_class_input_is_defined() -> None:
    counts = metrics.confusion([], [])
    assert counts == Confusion(0, 0, 0, 0)
    assert all(np.isnan(value) for value in {**metrics.rates(counts), **estimates([], [])}.values())
    assert np.isnan(estimate("auroc", [1, 1], [0.2, 0.3]))
    assert estimate("average_precision", [1, 1], [0.2, 0.3]) == 1
    assert np.isnan(estimate("average_precision", [0, 0], [0.2, 0.3]))


def test_certain_mistakes_have_a_finite_log_loss() -> None:
    assert estimate("log_loss", [0, 1], [1.0, 0.0]) == pytest.approx(reference.log_loss([0, 1], [1.0, 0.0]), abs=1e-12)
    assert estimate("log_loss", [0, 1], [0.0, 1.0]) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize(
    ("label", "probability", "message"),
    [
        ([0, 2], [0.1, 0.2], "0 .benign. and 1"),
        ([0, 1], [0.1, 1.2], "1.2"),
        ([0, 1], [0.1, np.nan], "nan"),
        ([0, 1], [0.1], "shape"),
        ([[0, 1]], [[0.1, 0.2]], "shape"),
    ],
)
def test_bad_input_is_named(label: Any, probability: Any, message: str) -> None:
    for compute in (estimates, metrics.confusion, metrics.roc_curve):
        with pytest.raises(ValueError, match=message):
            compute(label, probability)


@given(arrays())
def test_roc_curve_agrees_with_scikit_learn(pair: Arrays) -> None:
    curve = metrics.roc_curve(*pair)
    expected = reference.roc_curve(*pair, drop_intermediate=False)
    for found, wanted in zip(curve, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-14)
    assert np.trapezoid(curve.sensitivity, curve.false_positive_rate) == pytest.approx(estimate("auroc", *pair))


@given(arrays())
def test_precision_recall_curve_agrees_with_scikit_learn(pair: Arrays) -> None:
    recall, precision, threshold = metrics.precision_recall_curve(*pair)
    expected = reference.precision_recall_curve(*pair, drop_intermediate=False)
    np.testing.assert_allclose(precision, expected[0][::-1], atol=1e-14)
    np.testing.assert_allclose(recall, expected[1][::-1], atol=1e-14)
    np.testing.assert_array_equal(threshold[1:], expected[2][::-1])
    assert threshold[0] == np.inf


@pytest.mark.parametrize("curve", [metrics.roc_curve, metrics.precision_recall_curve])
@given(pair=arrays(both_classes=False, min_size=0), points=st.integers(4, 30))
def test_thinned_curves_keep_ends_and_extremes(curve: Any, pair: Arrays, points: int) -> None:
    whole, thin = np.array(curve(*pair)), np.array(curve(*pair, points=points))
    assert thin.shape[1] <= points
    rows = {tuple(row) for row in np.nan_to_num(whole.T).tolist()}
    assert all(tuple(row) in rows for row in np.nan_to_num(thin.T).tolist())
    np.testing.assert_array_equal(thin[:, [0, -1]], whole[:, [0, -1]])
    np.testing.assert_array_equal(np.nan_to_num(thin[1]).max(), np.nan_to_num(whole[1]).max())
    np.testing.assert_array_equal(np.nan_to_num(thin[1]).min(), np.nan_to_num(whole[1]).min())


def test_a_thinned_curve_lies_close_to_the_whole() -> None:
    label, probability = sample()
    thin = metrics.roc_curve(label, probability, points=200)
    assert 150 <= len(thin.threshold) <= 200
    area = np.trapezoid(thin.sensitivity, thin.false_positive_rate)
    assert area == pytest.approx(estimate("auroc", label, probability), abs=1e-3)
    with pytest.raises(ValueError, match="points >= 4"):
        metrics.roc_curve(label, probability, points=3)


@pytest.mark.parametrize("kind", ["int", "str", "object", "mixed"])
def test_cases_are_numbered_in_sorted_order(kind: str) -> None:
    given_names: dict[str, Any] = {
        "int": np.array([9, 7, 9]),
        "str": np.array(["b", "a", "b"]),
        "object": np.array(["b", "a", "b"], dtype=object),
        "mixed": np.array(["b", 7, "b"], dtype=object),
    }
    names, index = metrics.case_index(given_names[kind])
    assert index.tolist() == [1, 0, 1]
    assert [names[i] for i in index] == given_names[kind].tolist()
    assert all(type(name) in (int, str) for name in names)


def test_rates_of_a_matrix() -> None:
    assert metrics.rates(Confusion(6, 2, 1, 3))["sensitivity"] == 0.75
    assert np.isnan(metrics.rates(Confusion(6, 0, 1, 0))["precision"])
