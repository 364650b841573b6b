import pandas as pd
import pytest

from cancernet.data.splits import make_split
from cancernet.data.training_record import SEEN, TrainingRecord
from cancernet.errors import InputError
from tests.data.indexes import draw_index, names


def record_of(index: pd.DataFrame, split_name: str = "case", seed: int = 0) -> TrainingRecord:
    record = TrainingRecord.of(make_split(index, split_name, seed), index)
    return TrainingRecord.from_state(record.state())


@pytest.mark.parametrize("split_name", ["case", "patch"])
def test_own_test_part_is_accepted(split_name):
    index = draw_index(names(30))
    split = make_split(index, split_name)
    record_of(index, split_name).refuse(index, split.rows("test"), SEEN, "test")


@pytest.mark.parametrize(
    ("trained", "split_name", "seed"),
    [("case", "case", 1), ("case", "patch", 0), ("patch", "patch", 1), ("patch", "case", 0)],
)
def test_any_other_split_of_the_same_data_is_refused(trained, split_name, seed):
    index = draw_index(names(30))
    split = make_split(index, split_name, seed)
    with pytest.raises(InputError, match="this model"):
        record_of(index, trained).refuse(index, split.rows("test"), SEEN, "test")


def test_validation_cases_may_be_validated_on_but_not_tested_on():
    index = draw_index(names(30))
    rows = make_split(index).rows("validation")
    record = record_of(index)
    record.refuse(index, rows, ("train",), "validate")
    with pytest.raises(InputError, match="chose the epoch"):
        record.refuse(index, rows, SEEN, "test")


def test_renamed_cases_are_known_by_their_images():
    index = draw_index(names(30))
    record = record_of(index)
    renamed = index.assign(case="new" + index["case"])
    split = make_split(renamed, "case", seed=9)
    left = record.leave_out(renamed, split, "test", SEEN)
    met = set(index["hash"].to_numpy()[split.rows("test")]) & set(
        index["hash"].to_numpy()[(make_split(index).part == "train") | (make_split(index).part == "validation")]
    )
    assert len(met) > 0
    assert len(split.rows("test")) - len(left.rows("test")) == len(met) == len(left.left_out)


def test_two_trainings_add_up():
    index = draw_index(names(30))
    first, second = record_of(index, seed=0), record_of(index, seed=1)
    both = first.join(second)
    assert set(both.cases["train"]) == {*first.cases["train"], *second.cases["train"]}
    assert len(both.images["train"]) >= len(first.images["train"])
