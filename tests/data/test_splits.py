import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancernet.data.case_lists import OFFICIAL
from cancernet.data.split_rules import LEFT_OUT, OUTSIDE, PARTS, iterate_keys, split_cases
from cancernet.data.splits import check_disjoint, check_parts, make_split
from cancernet.errors import InputError
from tests.data.indexes import draw_index, names


def parts_of_cases(index: pd.DataFrame, part: np.ndarray) -> dict[str, str]:
    return dict(zip(index["case"], part, strict=True))


@settings(max_examples=40)
@given(cases=st.integers(3, 60), seed=st.integers(0, 2**32), patches=st.integers(2, 6), blanks=st.integers(0, 2))
def test_no_case_and_no_image_stands_in_two_parts(cases, seed, patches, blanks):
    index = draw_index(names(cases), patches, seed, blanks)
    split = make_split(index, "case", seed)
    used = pd.DataFrame({"case": index["case"], "hash": index["hash"], "part": split.part})
    used = used[used["part"].isin(PARTS)]
    assert (used.groupby("case")["part"].nunique() == 1).all()
    assert (used.groupby("hash")["part"].nunique() == 1).all()
    assert len(used) + len(split.left_out) == len(index)
    assert (split.part == LEFT_OUT).sum() == len(split.left_out)


@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), blanks=st.integers(0, 3))
def test_no_patch_and_no_image_stands_in_two_parts_of_a_split_by_patch(seed, blanks):
    index = draw_index(names(5), 30, seed, blanks)
    split = make_split(index, "patch", seed)
    used = np.isin(split.part, PARTS)
    frame = pd.DataFrame({"hash": index["hash"], "part": split.part})[used]
    assert (frame.groupby("hash")["part"].nunique() == 1).all()
    assert len(set(iterate_keys(index))) == len(index)


def test_fractions_are_those_of_whole_cases():
    index = draw_index(names(279))
    counts = pd.Series(parts_of_cases(index, split_cases(index, 3))).value_counts()
    assert counts.to_dict() == {"train": 201, "test": 56, "validation": 22}


def test_fractions_of_patches_are_the_tutorials():
    index = draw_index(names(279), 10)
    part = make_split(index, "patch").part
    assert [(part == name).sum() for name in PARTS] == [2009, 223, 558]


def test_parts_have_the_prevalence_of_the_whole():
    index = draw_index(names(279), 50)
    for seed in range(5):
        part = split_cases(index, seed)
        for name in PARTS:
            assert abs(index["label"][part == name].mean() - index["label"].mean()) < 0.08


def test_split_depends_on_the_seed_and_on_nothing_else():
    index = draw_index(names(60))
    shuffled = index.sample(frac=1, random_state=1)
    first, again = split_cases(index, 0), split_cases(shuffled, 0)
    assert parts_of_cases(index, first) == parts_of_cases(shuffled, again)
    assert parts_of_cases(index, first) != parts_of_cases(index, split_cases(index, 1))


def test_one_more_case_moves_hardly_any_other():
    # No rule that keeps the fractions can move none at all (see split_cases); a shuffle would move 40 % of them.
    index = draw_index(names(279))
    moved = []
    for extra in range(30):
        more = pd.concat([index, draw_index([f"9{extra:04d}"], seed=extra)], ignore_index=True)
        before, after = parts_of_cases(index, split_cases(index, 0)), parts_of_cases(more, split_cases(more, 0))
        moved.append(sum(after[case] != part for case, part in before.items()))
    assert np.mean(moved) < 2
    assert max(moved) <= 6


def test_each_case_is_tested_in_one_fold():
    index = draw_index(names(43))
    tested = []
    for fold in range(5):
        part = split_cases(index, 0, folds=5, fold=fold)
        assert set(part) == set(PARTS)
        tested += sorted(set(index["case"][part == "test"]))
    assert sorted(tested) == names(43)


def test_official_lists_are_complete_and_disjoint():
    assert {part: len(set(cases)) for part, cases in OFFICIAL.items()} == {"train": 84, "validation": 29, "test": 49}
    assert len(set().union(*OFFICIAL.values())) == 162


def test_official_names_absent_cases_and_leaves_unlisted_ones_outside():
    listed = [OFFICIAL["train"][0], OFFICIAL["validation"][0], OFFICIAL["test"][0]]
    index = draw_index([*listed, "1"])
    split = make_split(index, "official")
    assert parts_of_cases(index, split.part) == dict(zip([*listed, "1"], [*PARTS, OUTSIDE], strict=True))
    assert len(split.absent) == 159
    assert listed[0] not in split.absent
    assert parts_of_cases(index, make_split(index, "extended").part)["1"] == "train"


def test_folds_of_the_published_lists_validate_each_case_once_and_leave_the_test_part():
    listed = [
        case for part, cases in OFFICIAL.items() for case in cases[: {"train": 24, "validation": 9, "test": 6}[part]]
    ]
    index = draw_index([*listed, "1"])
    plain = make_split(index, "official")
    validated = []
    for fold in range(4):
        split = make_split(index, "official", folds=4, fold=fold)
        assert list(split.rows("test")) == list(plain.rows("test"))
        assert list(split.rows(OUTSIDE)) == list(plain.rows(OUTSIDE))
        cases = sorted(set(index["case"].to_numpy()[split.rows("validation")]))
        assert 8 <= len(cases) <= 9
        validated += cases
    assert sorted(validated) == sorted(listed[:33])
    assert "1" in index["case"].to_numpy()[make_split(index, "extended", folds=34, fold=0).rows("train")]
    with pytest.raises(InputError, match="the archive has 0"):
        make_split(draw_index(["1", "2"]), "official", folds=2, fold=0)


def test_split_file_gives_the_same_split_again(tmp_path):
    index = draw_index(names(20), blanks=1)
    for name in ("case", "patch"):
        split = make_split(index, name, seed=5)
        file = tmp_path / f"{name}.csv"
        split.table(index).to_csv(file, index=False)
        again = make_split(index, str(file))
        assert again.unit == split.unit
        for part in PARTS:
            assert list(again.rows(part)) == list(split.rows(part))


def test_identical_image_stays_in_the_earlier_part_and_is_listed(tmp_path):
    index = draw_index(["1", "2", "3"], 4)
    index.loc[index["case"] == "2", "hash"] = index.loc[index["case"] == "1", "hash"].to_numpy()
    file = tmp_path / "parts.csv"
    file.write_text("case,part\n1,test\n2,train\n3,validation\n")
    split = make_split(index, str(file))
    assert (split.part[index["case"] == "1"] == LEFT_OUT).all()
    assert (split.part[index["case"] == "2"] == "train").all()
    assert set(split.left_out["kept_in"]) == {"train"}
    assert len(split.left_out) == 4


def test_proof_of_no_leak_finds_a_leak():
    index = draw_index(names(3), 4)
    part = np.array(["train", "test"] * 6, dtype=object)
    with pytest.raises(InputError, match="case 10000 stands in two parts"):
        check_disjoint(index, part, "case")
    check_disjoint(index, part, "patch")
    index.loc[0, "hash"] = index.loc[1, "hash"]
    with pytest.raises(InputError, match="image .* stands in two parts"):
        check_disjoint(index, part, "patch")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"name": "nosuch"}, "unknown split 'nosuch'"),
        ({"folds": 5}, "go together"),
        ({"folds": 5, "fold": 5}, "0 <= fold < folds"),
        ({"folds": 50, "fold": 1}, "the archive has 10"),
        ({"name": "patch", "folds": 5, "fold": 1}, "goes with --data.split case, official, extended; got 'patch'"),
    ],
)
def test_bad_settings_are_named(arguments, words):
    with pytest.raises(InputError, match=words):
        make_split(draw_index(names(10)), **arguments)


def test_bad_split_files_are_named(tmp_path):
    index = draw_index(names(4))
    file = tmp_path / "parts.csv"
    for text, words in [
        ("case\n10000\n", "columns part and case"),
        ("case,part\n10000,holdout\n", "unknown part 'holdout'"),
        ("case,part\n10000,train\n10000,test\n", "stands in two parts"),
    ]:
        file.write_text(text)
        with pytest.raises(InputError, match=words):
            make_split(index, str(file))


def test_part_that_is_empty_or_of_one_class_says_what_to_do():
    index = draw_index(names(4))
    with pytest.raises(InputError, match="train part is empty; use --data.split case"):
        check_parts(index, make_split(index, "official"), ("train",))
    index["label"] = 0
    with pytest.raises(InputError, match="test part holds benign patches only; add cases"):
        check_parts(index, make_split(index, "case"), ("test",))


def test_fewer_than_three_cases_cannot_be_split_by_case():
    with pytest.raises(InputError, match="3 cases or more"):
        make_split(draw_index(names(2)))
