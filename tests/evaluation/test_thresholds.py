from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cancernet.evaluation import thresholds
from cancernet.evaluation.metrics import confusion, rates

Arrays = tuple[np.ndarray, np.ndarray]
TARGETS = st.sampled_from([0.05, 0.3, 0.5, 2 / 3, 0.9, 0.95, 1.0])


def arrays() -> st.SearchStrategy[Arrays]:
    """Labels of both classes with probabilities on a coarse grid, so that ties are the rule."""
    patches = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 8)), min_size=2, max_size=40)
    drawn = patches.map(lambda rows: (np.array([r[0] for r in rows]), np.array([r[1] / 8 for r in rows])))
    return drawn.filter(lambda pair: 0 < pair[0].sum() < len(pair[0]))


def at_each(pair: Arrays) -> list[tuple[float, dict[str, float]]]:
    """Every observed probability as a threshold, from the lowest up, with the rates there: the slow obvious way."""
    return [(float(value), rates(confusion(*pair, value))) for value in np.unique(pair[1])]


@given(arrays())
def test_youden_is_the_lowest_of_the_best_observed_thresholds(pair: Arrays) -> None:
    index = [(value, shown["sensitivity"] + shown["specificity"] - 1) for value, shown in at_each(pair)]
    best = max(j for _, j in index)
    assert thresholds.youden(*pair) == min(value for value, j in index if j > best - 1e-12)


@given(arrays(), TARGETS)
def test_fixed_sensitivity_is_the_highest_threshold_that_reaches_it(pair: Arrays, target: float) -> None:
    reaching = [value for value, shown in at_each(pair) if shown["sensitivity"] >= target]
    assert thresholds.at_sensitivity(*pair, target) == max(reaching)


@given(arrays(), TARGETS)
def test_fixed_specificity_is_the_lowest_threshold_that_reaches_it(pair: Arrays, target: float) -> None:
    reaching = [value for value, shown in at_each(pair) if shown["specificity"] >= target]
    chosen = thresholds.at_specificity(*pair, target)
    shown = rates(confusion(*pair, chosen))
    assert shown["specificity"] >= target
    if reaching:
        assert chosen == min(reaching)
        best = max(s["sensitivity"] for _, s in at_each(pair) if s["specificity"] >= target)
        assert shown["sensitivity"] == best
    else:
        assert chosen > pair[1].max()
        assert shown["sensitivity"] == 0


@given(arrays())
def test_operating_points_reach_their_targets_where_they_were_chosen(pair: Arrays) -> None:
    points = thresholds.operating_points(*pair)
    assert [(point.fixed, point.target) for point in points] == list(thresholds.FIXED)
    for point in points:
        assert getattr(point, point.fixed) >= point.target
        shown = rates(confusion(*pair, point.threshold))
        assert (point.sensitivity, point.specificity) == (shown["sensitivity"], shown["specificity"])
    assert thresholds.apply(points, *pair) == points


@given(arrays())
def test_an_increasing_change_of_scale_moves_thresholds_with_it(pair: Arrays) -> None:
    label, probability = pair
    assert thresholds.youden(label, probability**2) == thresholds.youden(label, probability) ** 2


def test_operating_points_are_tested_on_other_data_at_the_same_thresholds() -> None:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 400)
    probability = np.clip(rng.normal(0.4 + 0.2 * label, 0.15), 0, 1)
    chosen = thresholds.operating_points(label[:200], probability[:200])
    shown = thresholds.apply(chosen, label[200:], probability[200:])
    assert [point.threshold for point in shown] == [point.threshold for point in chosen]
    for point in shown:
        calls = probability[200:] >= point.threshold
        assert point.sensitivity == pytest.approx(calls[label[200:] == 1].mean())
        assert point.specificity == pytest.approx(1 - calls[label[200:] == 0].mean())
    assert [point.name for point in chosen] == [
        "sensitivity_at_specificity_90",
        "sensitivity_at_specificity_95",
        "specificity_at_sensitivity_90",
        "specificity_at_sensitivity_95",
        "specificity_at_sensitivity_99",
    ]
    assert thresholds.apply(chosen, [0, 0], [0.1, 0.2])[0].sensitivity is None


def test_youden_ties_go_to_the_lower_threshold() -> None:
    # 0.3 and 0.9 both give sensitivity + specificity = 1.5.
    assert thresholds.youden([0, 1, 0, 1], [0.1, 0.3, 0.5, 0.9]) == 0.3


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_an_unreachable_specificity_calls_nothing_in_the_precision_of_the_data(precision: type) -> None:
    probability: np.ndarray = np.array([0.2, 1.0, 1.0], dtype=precision)
    chosen = thresholds.at_specificity([0, 0, 1], probability, 0.9)
    assert chosen > 1
    assert not (probability >= chosen).any()


def test_a_target_met_exactly_by_a_quotient_counts_as_reached() -> None:
    label = np.append(np.zeros(5, int), np.ones(20, int))
    probability = np.linspace(0, 1, 25)
    assert thresholds.at_sensitivity(label, probability, 0.95) == probability[6]


@pytest.mark.parametrize("choose", [thresholds.youden, thresholds.operating_points])
@pytest.mark.parametrize("label", [[], [0, 0], [1, 1, 1]])
def test_one_class_is_refused(choose: Callable[..., object], label: list[int]) -> None:
    with pytest.raises(ValueError, match="needs both classes"):
        choose(label, [0.5] * len(label))


@pytest.mark.parametrize("target", [0.0, 1.1, float("nan")])
def test_targets_outside_the_range_are_refused(target: float) -> None:
    for choose in (thresholds.at_sensitivity, thresholds.at_specificity):
        with pytest.raises(ValueError, match="target in"):
            choose([0, 1], [0.2, 0.8], target)
