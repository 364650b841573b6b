# mypy: allow-untyped-defs
import pytest

from cancernet.data.splits import make_split
from cancernet.errors import InputError
from scripts.studies.learning_curve import cut, main
from tests.data.indexes import draw_index, names

QUICK = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture(scope="module")
def index():
    return draw_index(names(30))


def test_cases_of_a_smaller_number_are_among_those_of_a_larger_one(index):
    split = make_split(index)
    small, large = (cut(split, index, patches, seed=3) for patches in (40, 120))
    assert set(small["case"]) < set(large["case"])
    of_training = small[small["part"] == "train"]["case"]
    counts = index["case"].value_counts()[of_training]
    assert counts.sum() >= 40 > counts.sum() - counts.iloc[-1]


def test_the_other_parts_stay(index):
    split = make_split(index)
    table = split.table(index)
    for part in ("validation", "test"):
        found = cut(split, index, 40, seed=0)
        assert set(found[found["part"] == part]["case"]) == set(table[table["part"] == part]["case"])


def test_more_than_there_is_is_refused(index):
    with pytest.raises(InputError, match="the training part holds"):
        cut(make_split(index), index, 10**6, seed=0)


def test_a_curve_is_a_row_a_number(archive, cache, tmp_path, capsys):
    options = ["--config=configs/original.yaml", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2", *QUICK]
    given = [str(tmp_path / "curve"), f"--root={archive}", f"--cache={cache}", "--split=case", "--seeds", "0"]
    assert main([*given, "--patches", "40", "100", *options]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "training patches |" in line]
    assert [row.split(" |")[0] for row in rows] == ["| 40 training patches", "| 100 training patches"]
