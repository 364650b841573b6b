import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancernet.evaluation.estimates import estimates
from cancernet.evaluation.metrics import LOSSES, confusion, rates
from cancernet.evaluation.per_case import case_summary, per_case, worst_tenth
from tests.evaluation.test_metrics import Arrays, arrays, sample


def test_rows_are_the_metrics_of_each_case() -> None:
    label, probability = sample(300)
    case = np.random.default_rng(1).integers(0, 7, 300) + 8863
    exact = probability**2
    rows = per_case(label, probability, case, 0.4, exact)
    assert [row.case for row in rows] == [str(number) for number in range(8863, 8870)]
    for row in rows:
        member = case == int(row.case)
        counts = confusion(label[member], probability[member], 0.4)
        values = estimates(label[member], probability[member], 0.4) | rates(counts) | counts._asdict()
        values |= estimates(label[member], exact[member], metrics=LOSSES)
        sizes = {"patches": member.sum(), "idc": label[member].sum(), "threshold": 0.4, "case": row.case}
        assert dict(row) == {**values, **sizes, "mean_probability": float(probability[member].mean())}


def test_a_one_class_case_has_none_and_is_left_out_of_means() -> None:
    rows = per_case([0, 0, 0, 1, 0, 1], [0.1, 0.2, 0.3, 0.6, 0.7, 0.9], list("aabbcc"))
    assert [row.auroc for row in rows] == [None, 1.0, 1.0]
    assert [row.sensitivity for row in rows] == [None, 1.0, 1.0]
    assert [row.specificity for row in rows] == [1.0, 1.0, 0.0]
    summary = case_summary(rows)
    assert (summary.auroc.cases, summary.auroc.mean) == (2, 1.0)
    assert summary.specificity.mean == pytest.approx(2 / 3)
    assert summary.specificity.sd == pytest.approx(np.std([1, 1, 0], ddof=1))
    assert [getattr(summary.balanced_accuracy, name) for name in ("lowest", "median", "highest")] == [0.5, 0.75, 1.0]


def test_no_rows_make_an_empty_summary() -> None:
    assert per_case([], [], []) == []
    summary = case_summary([])
    assert summary.auroc.cases == 0
    assert all(value is None for name, value in summary.auroc if name != "cases")
    assert case_summary(per_case([1], [0.5], [3])).accuracy.sd is None
    with pytest.raises(ValueError, match="case of shape"):
        per_case([0, 1], [0.1, 0.2], [1])


@given(st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=40))
def test_the_worst_tenth_is_the_lowest_of_the_defined(values: list[int | None]) -> None:
    (row,) = per_case([1], [0.5], ["a"])
    rows = [row.model_copy(update={"accuracy": value}) for value in values]
    worst = [row.accuracy for row in worst_tenth(rows, by="accuracy")]
    defined = sorted(value for value in values if value is not None)
    assert worst == defined[: int(np.ceil(len(defined) / 10))]


@settings(max_examples=20)
@given(arrays(both_classes=False), st.integers(0, 2**32 - 1))
def test_the_order_of_patches_does_not_matter(pair: Arrays, seed: int) -> None:
    label, probability = pair
    case = np.arange(len(label)) % 3
    shuffled = np.random.default_rng(seed).permutation(len(label))
    for one, other in zip(
        per_case(label, probability, case),
        per_case(label[shuffled], probability[shuffled], case[shuffled]),
        strict=True,
    ):
        assert dict(one) == pytest.approx(dict(other))
