import pandas as pd
import pytest

from cancernet.data.splits import make_split
from cancernet.data.training_record import SEEN, Exposure
from cancernet.errors import InputError
from tests.data.indexes import draw_index, names


def exposure_of(index: pd.DataFrame, protocol: str = "case", seed: int = 0) -> Exposure:
    exposure = Exposure.of(make_split(index, protocol, seed), index)
    return Exposure.from_state(exposure.state())


@pytest.mark.parametrize("protocol", ["case", "patch"])
def test_own_test_part_is_accepted(protocol):
    index = draw_index(names(30))
    split = make_split(index, protocol)
    exposure_of(index, protocol).refuse(index, split.rows("test"), SEEN, "test")


@pytest.mark.parametrize(
    ("trained", "protocol", "seed"),
    [("case", "case", 1), ("case", "patch", 0), ("patch", "patch", 1), ("patch", "case", 0)],
)
def test_any_other_split_of_the_same_data_is_refused(trained, protocol, seed):
    index = draw_index(names(30))
    split = make_split(index, protocol, seed)
    with pytest.raises(InputError, match="this model"):
        exposure_of(index, trained).refuse(index, split.rows("test"), SEEN, "test")


def test_validation_cases_may_be_validated_on_but_not_tested_on():
    index = draw_index(names(30))
    rows = make_split(index).rows("validation")
    exposure = exposure_of(index)
    exposure.refuse(index, rows, ("train",), "validate")
    with pytest.raises(InputError, match="chose the epoch"):
        exposure.refuse(index, rows, SEEN, "test")


def test_renamed_cases_are_known_by_their_images():
    index = draw_index(names(30))
    exposure = exposure_of(index)
    renamed = index.assign(case="new" + index["case"])
    split = make_split(renamed, "case", seed=9)
    left = exposure.leave_out(renamed, split, "test", SEEN)
    met = set(index["hash"].to_numpy()[split.rows("test")]) & set(
        index["hash"].to_numpy()[(make_split(index).part == "train") | (make_split(index).part == "validation")]
    )
    assert len(met) > 0
    assert len(split.rows("test")) - len(left.rows("test")) == len(met) == len(left.left_out)


def test_two_trainings_add_up():
    index = draw_index(names(30))
    first, second = exposure_of(index, seed=0), exposure_of(index, seed=1)
    both = first.join(second)
    assert set(both.cases["train"]) == {*first.cases["train"], *second.cases["train"]}
    assert len(both.images["train"]) >= len(first.images["train"])
