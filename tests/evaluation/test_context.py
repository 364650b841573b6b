import json
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score, roc_auc_score

from cancernet.cli import main
from cancernet.errors import InputError
from cancernet.evaluation.calibration import log_loss_of_logit, sigmoid
from cancernet.evaluation.context.cases import choose_cases
from cancernet.evaluation.context.correction import correction, features, fit_correction, gather_neighbours
from tests.evaluation.run_folders import draw_predictions

PARTS = {
    "train": ["t1"],
    "validation": ["v1", "v2", "v3"],
    "test": ["007", "8001", "8002"],
    "outside": ["9900", "9901"],
}


def place(columns, rows):
    return 1 + 50 * np.asarray(columns), 1 + 50 * np.asarray(rows)


def brute(logit, case, column, row, rings):
    """Neighbours cell by cell, with the mean where patches share one; cells below 0 are unknown."""
    count, total = np.zeros((len(logit), rings)), np.zeros((len(logit), rings))
    for i in range(len(logit)):
        for ring in range(1, rings + 1):
            cells = {}
            for j in range(len(logit)):
                apart = max(abs(column[i] - column[j]), abs(row[i] - row[j]))
                if case[i] == case[j] and apart == ring and column[i] >= 0 and column[j] >= 0:
                    cells.setdefault((column[j], row[j]), []).append(logit[j])
            count[i, ring - 1] = len(cells)
            total[i, ring - 1] = sum(np.mean(values) for values in cells.values())
    return count, total


patches = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(-1, 6), st.integers(0, 6), st.floats(-9, 9)), min_size=1, max_size=40
)


@given(patches, st.sampled_from([1, 2]))
@settings(max_examples=60, deadline=None)
def test_neighbours_are_those_of_a_loop(drawn, rings):
    case, column, row, logit = (np.array(values) for values in zip(*drawn, strict=True))
    x, y = place(column, row)
    for found, expected in zip(
        gather_neighbours(logit, case, x, y, rings), brute(logit, case, column, row, rings), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_features_are_the_terms_of_the_formula():
    count, total = np.array([[8.0, 16.0], [4.0, 0.0]]), np.array([[16.0, -16.0], [2.0, 0.0]])
    np.testing.assert_array_equal(features([3.0, -2.0], count, total, 0), [[3, 2, 3, -1], [-1, 0.25, 0, 0]])
    np.testing.assert_array_equal(features([3.0, -2.0], count, total, 1), [[2, 1, 2, -2], [-1.5, -0.25, 0, 0]])


@given(patches, st.sampled_from([1, 2]), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_without_neighbours_nothing_is_added(drawn, rings, seed):
    alone = {entry[:3]: entry for entry in drawn}.values()
    case, column, row, logit = (np.array(values) for values in zip(*alone, strict=True))
    x, y = place((rings + 1) * column, (rings + 1) * row)
    found = gather_neighbours(logit, case, x, y, rings)
    added = correction(logit, *found, 0.3, np.random.default_rng(seed).normal(0, 5, (rings, 2)))
    assert (added == 0).all()


@given(patches, st.sampled_from([1, 2]))
@settings(max_examples=40, deadline=None)
def test_patches_far_away_say_nothing(drawn, rings):
    near = [entry for entry in drawn if entry[1] >= 0]
    if not near:
        return
    case, column, row, logit = (np.array(values) for values in zip(*near, strict=True))
    far = gather_neighbours(
        np.append(logit, logit + 3),
        np.append(case, case),
        *place(np.append(column, column + 6 + rings + 1), np.append(row, row)),
        rings,
    )
    alone = gather_neighbours(logit, case, *place(column, row), rings)
    for with_far, without in zip(far, alone, strict=True):
        np.testing.assert_array_equal(with_far[: len(logit)], without)


def draw_scores(seed, side=40, holes=0.3):
    """Log-odds on a grid with holes, and their neighbours in two rings."""
    random = np.random.default_rng(seed)
    column, row = (axis.ravel() for axis in np.meshgrid(np.arange(side), np.arange(side)))
    kept = random.uniform(size=len(column)) >= holes
    logit = random.normal(-0.5, 1.5, kept.sum())
    return logit, *gather_neighbours(logit, np.zeros(len(logit)), *place(column[kept], row[kept]), 2)


@pytest.mark.parametrize("ridge", [0.3, 1.0, 40.0])
def test_fit_is_the_minimum_that_scipy_finds(ridge):
    logit, count, total = draw_scores(1)
    label = (np.random.default_rng(2).uniform(size=len(logit)) < sigmoid(logit + total[:, 0] / 4)).astype(int)
    spread = logit[count.sum(axis=1) > 0].std()

    def loss(coefficients):
        odds = logit + correction(logit, count, total, -0.7, coefficients.reshape(2, 2))
        # The ridge weighs what the coefficients are of scores in standard deviations.
        return np.logaddexp(0, np.where(label == 1, -odds, odds)).sum() + ridge / 2 * np.sum(
            (coefficients * spread) ** 2
        )

    fitted = fit_correction(label, logit, count, total, -0.7, ridge).ravel()
    expected = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-6})
    assert loss(fitted) <= expected.fun + 1e-9
    np.testing.assert_allclose(fitted, expected.x, atol=1e-3)


def test_fit_is_that_of_scikit_learn_where_the_offset_can_be_absorbed():
    # With all 8 neighbours there, and t = 0, z + u z + w m is an ordinary regression on z and m.
    logit, count, total = (values[:, :1] if values.ndim == 2 else values for values in draw_scores(3, holes=0.0))
    inside = count[:, 0] == 8
    logit, count, total = logit[inside], count[inside], total[inside]
    label = (np.random.default_rng(4).uniform(size=len(logit)) < sigmoid(logit + total[:, 0] / 8)).astype(int)
    reference = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10, max_iter=1000)
    reference.fit(np.stack([logit, total[:, 0] / 8], axis=1), label)
    u, w = fit_correction(label, logit, count, total, 0.0, ridge=0.0)[0]
    np.testing.assert_allclose([1 + u, w], reference.coef_[0], atol=1e-4)


def test_fit_recovers_what_labels_were_drawn_from():
    logit, count, total = draw_scores(5, side=220)
    truth = np.array([[-0.3, 0.9], [0.1, 0.6]])
    odds = logit + correction(logit, count, total, -0.5, truth)
    label = (np.random.default_rng(6).uniform(size=len(logit)) < sigmoid(odds)).astype(int)
    np.testing.assert_allclose(fit_correction(label, logit, count, total, -0.5), truth, atol=0.25)


def draw_regions(seed, side=50):
    """A slide whose labels are regions, with a lot of noise in the scores."""
    random = np.random.default_rng(seed)
    field = gaussian_filter(random.normal(size=(side, side)), 4).ravel()
    label = (field > np.quantile(field, 0.7)).astype(int)
    column, row = (axis.ravel() for axis in np.meshgrid(np.arange(side), np.arange(side)))
    kept = random.uniform(size=side**2) < 0.9
    logit = 1.3 * (2 * label - 1) - 0.8 + random.normal(0, 1.7, side**2)
    return label[kept], logit[kept], *place(column[kept], row[kept])


@pytest.mark.parametrize(("rings", "margin"), [(1, 0.06), (2, 0.07)])
def test_context_beats_patches_on_slides_with_regions(rings, margin):
    slides = [draw_regions(seed) for seed in (7, 8)]
    found = [gather_neighbours(logit, np.zeros(len(logit)), x, y, rings) for _, logit, x, y in slides]
    coefficients = fit_correction(*slides[0][:2], *found[0], -0.8)
    label, logit = slides[1][:2]
    corrected = logit + correction(logit, *found[1], -0.8, coefficients)
    assert roc_auc_score(label, sigmoid(corrected)) > roc_auc_score(label, sigmoid(logit)) + margin
    assert log_loss_of_logit(label, corrected) < log_loss_of_logit(label, logit) - 0.1


@pytest.mark.parametrize("rings", [1, 2])
def test_scores_that_hardly_spread_are_not_ranked_by_their_number_of_neighbours(rings):
    # As an early checkpoint gives them: the ranks are worth something, the size is not, and no temperature mends it.
    slides = [(label, 1e-4 * logit - 1, x, y) for label, logit, x, y in map(draw_regions, (7, 8))]
    found = [gather_neighbours(logit, np.zeros(len(logit)), x, y, rings) for _, logit, x, y in slides]
    coefficients = fit_correction(*slides[0][:2], *found[0], -1.0)
    label, logit = slides[1][:2]
    corrected = logit + correction(logit, *found[1], -1.0, coefficients)
    assert roc_auc_score(label, sigmoid(corrected)) > roc_auc_score(label, sigmoid(logit))


@pytest.mark.parametrize("rings", [1, 2])
def test_what_one_slide_holds_is_not_carried_to_the_next(rings):
    """Fitted on a slide with much carcinoma and on one with little: a uniform region at the threshold stays there."""
    _, logit, x, y = draw_regions(7)
    count, total = gather_neighbours(np.full(len(logit), 0.3), np.zeros(len(logit)), x, y, rings)
    for share in (0.1, 0.9):
        label = (logit > np.quantile(logit, 1 - share)).astype(int)
        coefficients = fit_correction(label, logit, *gather_neighbours(logit, 0 * logit, x, y, rings), 0.3)
        np.testing.assert_allclose(correction(np.full(len(logit), 0.3), count, total, 0.3, coefficients), 0, atol=1e-12)


def test_fit_refuses_what_cannot_carry_it():
    logit, count, total = draw_scores(9, side=20)
    label = np.arange(len(logit)) % 2
    with pytest.raises(InputError, match="none of the .* has a neighbour"):
        fit_correction(label, logit, 0 * count, 0 * total, 0.0)
    with pytest.raises(InputError, match="0 IDC and"):
        fit_correction(0 * label, logit, count, total, 0.0)
    with pytest.raises(InputError, match="4 coefficients need 40 of each"):
        fit_correction(label[:70], logit[:70], count[:70], total[:70], 0.0)


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
    pd.concat(tables, ignore_index=True).to_parquet(folder / "predictions.parquet")
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
    path = folder / "predictions.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | (origin or {})))
    table = pd.read_parquet(folder / "predictions.parquet")
    table.assign(**{name: make(table) for name, make in columns.items()}).to_parquet(folder / "predictions.parquet")


def test_patches_left_out_are_neither_scored_nor_neighbours(folder):
    def gone(table):
        return (table["case"] != "t1") & (np.arange(len(table)) % 5 == 0)

    change(folder, part=lambda table: table["part"].mask(gone(table), "left_out"))
    assert main(["context", str(folder)]) == 0
    first = read(folder)
    table = pd.read_parquet(folder / "predictions.parquet")
    table[~gone(table)].to_parquet(folder / "predictions.parquet")
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
