import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, roc_auc_score

from cancernet.cli import main
from cancernet.errors import InputError
from cancernet.evaluation.calibration import sigmoid
from cancernet.evaluation.context.cases import choose_cases
from tests.evaluation.run_folders import draw_predictions, replace_predictions

PARTS = {
    "train": ["t1"],
    "validation": ["v1", "v2", "v3"],
    "test": ["007", "8001", "8002"],
    "outside": ["9900", "9901"],
}


SETS = {case: frozenset([part]) for part, cases in PARTS.items() for case in cases} | {
    "both": frozenset(["validation", "test"]),
    "leak": frozenset(["train", "test"]),
}


def test_cases_are_chosen_by_their_part():
    assert choose_cases(SETS) == (["v1", "v2", "v3"], ["007", "8001", "8002", "9900", "9901"])
    assert choose_cases(SETS, ["9901"]) == (["9901"], ["007", "8001", "8002", "9900"])
    assert choose_cases(SETS, ["v2", "9901"], ["9900"]) == (["9901", "v2"], ["9900"])


@pytest.mark.parametrize(
    ("fit_on", "score", "message"),
    [
        (["t1"], None, "--fit_on: case t1 trained the network"),
        (["leak"], None, "--fit_on: case leak trained the network"),
        (["8001"], None, "--fit_on: case 8001 stands in the test part"),
        (["both"], None, "--fit_on: case both stands in the test part"),
        (None, ["t1"], "--score: case t1 trained the network"),
        (None, ["leak"], "--score: case leak trained the network"),
        (None, ["v1"], "--score: case v1 stands in the validation part"),
        (["9900"], ["9901", "9900"], "9900 would be scored by what was fitted on it"),
        (["nosuch"], None, "--fit_on: no case 'nosuch'"),
        (None, ["7"], "--score: no case '7'"),
    ],
)
def test_cases_that_break_the_rules_are_refused(fit_on, score, message):
    with pytest.raises(InputError, match=message) as caught:
        choose_cases(SETS, fit_on, score)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return draw_predictions(tmp_path_factory.mktemp("drawn") / "run" / "predict-drawn", PARTS)


@pytest.fixture
def folder(drawn, tmp_path):
    return shutil.copytree(drawn, tmp_path / "run" / "predict-drawn")


def read(folder, stem="context"):
    table = pd.read_csv(folder / f"{stem}.csv", dtype={"case": str}, keep_default_na=False)
    return table, json.loads((folder / f"{stem}.json").read_text(encoding="utf-8"))


def test_command_fits_on_validation_and_scores_the_rest(folder, capsys):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(["context", str(folder)]) == 0
    out = capsys.readouterr().out
    table, result = read(folder)
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert result["fitted"]["cases"] == PARTS["validation"]
    assert result["scored"]["cases"] == [*PARTS["test"], *PARTS["outside"]] == sorted(set(table["case"]))
    assert all(" ".join(words.split()) in " ".join(out.split()) for words in result["words"])
    assert "Fitted on 3 cases and scored on 5, this is little" in out
    predictions = pd.read_parquet(folder / "predictions.parquet")
    scored = predictions[predictions["case"].isin(result["scored"]["cases"])]
    np.testing.assert_array_equal(table["logit"].astype(np.float32), scored["logit"])
    np.testing.assert_array_equal(table["probability"].astype(np.float32), scored["probability"])
    # These scores leave little to gain; of what they miss, neighbours find half or more.
    missed = [1 - result[side]["auroc"]["estimate"] for side in ("context", "patch_wise")]
    assert missed[0] < missed[1] / 2


def test_figures_can_be_computed_again_from_the_table(folder):
    assert main(["context", str(folder), "--neighbourhood=5"]) == 0
    table, result = read(folder, "context-5x5")
    assert len(result["coefficients"]) == 2
    columns = {"patch_wise": "probability", "context": "context_probability"}
    called = {side: table[column] >= result["threshold"] for side, column in columns.items()}
    for side, shown in ((side, result[side]) for side in called):
        expected = {
            "auroc": roc_auc_score(table["label"], table[columns[side]]),
            "average_precision": average_precision_score(table["label"], table[columns[side]]),
            "balanced_accuracy": balanced_accuracy_score(table["label"], called[side]),
            "f1": f1_score(table["label"], called[side]),
        }
        assert {name: value["estimate"] for name, value in shown.items()} == pytest.approx(expected, abs=1e-9)
        assert all(value["low"] <= value["estimate"] <= value["high"] for value in shown.values())
    np.testing.assert_allclose(
        table["context_probability"], sigmoid(table["context_logit"].to_numpy()), rtol=1e-6, atol=1e-12
    )


def test_cases_outside_are_fitted_and_scored_both_ways(folder):
    for one, other in (("9900", "9901"), ("9901", "9900")):
        assert main(["context", str(folder), "--fit_on", one, "--score", other]) == 0
        table, result = read(folder, f"context-fitted-{one}-scored-{other}")
        assert set(table["case"]) == {other}
        assert result["fitted"]["cases"] == [one]
        assert result["difference"]["auroc"]["low"] is None
        assert "Over one case no interval is defined." in result["words"]
    assert main(["context", str(folder), "--fit_on=9900,9901", "--score=007"]) == 0
    assert read(folder, "context-fitted-9900+9901-scored-007")[1]["scored"]["cases"] == ["007"]


def test_fit_sees_scores_by_their_temperature_and_keeps_their_scale(tmp_path):
    tables = []
    for temperature in (1.0, 2.0):
        folder = draw_predictions(tmp_path / f"{temperature}", PARTS, temperature=temperature, threshold=0.5)
        change(folder, logit=lambda table, factor=temperature: factor * table["logit"])
        assert main(["context", str(folder)]) == 0
        tables.append(read(folder)[0])
    # Twice the log-odds at twice the temperature are the same scores to the fit.
    np.testing.assert_allclose(tables[1]["context_logit"], 2 * tables[0]["context_logit"], rtol=1e-8)
    bare = draw_predictions(tmp_path / "bare", PARTS, temperature=None, threshold=None)
    assert main(["context", str(bare)]) == 0
    table, result = read(bare)
    np.testing.assert_array_equal(table["context_logit"], tables[0]["context_logit"])
    assert result["threshold"] == 0.5
    assert "not calibrated" in result["words"][-1]


def test_cases_without_neighbours_stay_as_they_are(folder, tmp_path, capsys):
    lonely = draw_predictions(tmp_path / "lonely", {"test": ["8001", "8002"]}, spread=3)
    tables = [pd.read_parquet(place / "predictions.parquet") for place in (folder, lonely)]
    tables[0] = tables[0][~tables[0]["case"].isin(PARTS["test"])]
    replace_predictions(folder, pd.concat(tables, ignore_index=True))
    assert main(["context", str(folder), "--score=8001,8002"]) == 0
    assert "No scored patch has a neighbour: nothing changes." in capsys.readouterr().out
    table, result = read(folder, "context-scored-8001+8002")
    assert (table["context_logit"] == table["logit"]).all()
    assert (table["context_probability"] == table["probability"]).all()
    assert result["context"] == result["patch_wise"]
    assert all(value["estimate"] == value["low"] == value["high"] == 0 for value in result["difference"].values())
    assert main(["context", str(folder)]) == 0
    table, _ = read(folder)
    alone = table["case"].isin(["8001", "8002"])
    assert (table["context_logit"] == table["logit"])[alone].all()
    assert not (table["context_logit"] == table["logit"])[~alone].any()


def test_what_trained_the_run_is_refused_whatever_the_predictions_call_it(folder, capsys):
    split = pd.DataFrame({"case": ["8001", "v2", "9900"], "part": ["train", "train", "test"]})
    split.to_csv(folder.parent / "split.csv", index=False)
    for arguments, words in (
        (["--score=8001"], "8001 trained"),
        (["--fit_on=v2"], "v2 trained"),
        (["--fit_on=9900"], "9900 stands in the test part"),
    ):
        assert main(["context", str(folder), *arguments]) == 2
        assert words in capsys.readouterr().err
    assert main(["context", str(folder)]) == 0
    result = read(folder)[1]
    assert result["fitted"]["cases"] == ["v1", "v3"]
    assert result["scored"]["cases"] == ["007", "8002", "9900", "9901"]


def change(folder, origin=None, **columns):
    table = pd.read_parquet(folder / "predictions.parquet")
    replace_predictions(folder, table.assign(**{name: make(table) for name, make in columns.items()}), **(origin or {}))


def test_patches_left_out_are_neither_scored_nor_neighbours(folder):
    def gone(table):
        return (table["case"] != "t1") & (np.arange(len(table)) % 5 == 0)

    change(folder, part=lambda table: table["part"].mask(gone(table), "left_out"))
    assert main(["context", str(folder)]) == 0
    first = read(folder)
    table = pd.read_parquet(folder / "predictions.parquet")
    replace_predictions(folder, table[~gone(table)])
    assert main(["context", str(folder)]) == 0
    second = read(folder)
    pd.testing.assert_frame_equal(first[0], second[0])
    assert first[1] == second[1]
    assert second[0]["neighbours"].max() <= 8


REFUSALS = {
    "none of the": lambda folder: change(folder, x=lambda table: -1),
    "IDC and": lambda folder: change(folder, label=lambda table: 0),
    "no validation case": lambda folder: change(folder, part=lambda t: t["part"].replace("validation", "left_out")),
    "left to score": lambda folder: change(folder, part=lambda t: t["part"].replace(["test", "outside"], "train")),
    "every case trained": lambda folder: change(folder, {"leaks": True}),
    "neither metrics.json nor": lambda folder: (folder / "predictions.json").unlink(),
    "neither predictions.parquet nor": lambda f: [(f / f"predictions.{kind}").unlink() for kind in ("csv", "parquet")],
}


@pytest.mark.parametrize("words", REFUSALS)
def test_what_cannot_be_fitted_is_refused_in_one_line(folder, words, capsys):
    REFUSALS[words](folder)
    assert main(["context", str(folder)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not list(folder.glob("context*"))


@pytest.mark.parametrize("arguments", [["--neighbourhood=4"], ["--fit_on=,"], ["--nosuch=1"]])
def test_bad_options_are_refused(folder, arguments, capsys):
    assert main(["context", str(folder), *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1
