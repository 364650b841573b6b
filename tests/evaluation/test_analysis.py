import json
from dataclasses import replace
from functools import cache
from importlib.resources import files

import jsonschema
import numpy as np
import pytest
from sklearn import metrics as reference

from cancernet.evaluation.analysis import LOSSES, RATES, Scores, analyse, fit_calibration, rates_of
from cancernet.evaluation.baselines import BaselineScores
from cancernet.evaluation.bootstrap import bootstrap, bootstrap_case_mean, paired_difference
from cancernet.evaluation.metrics import METRICS
from cancernet.evaluation.thresholds import FIXED

DRAWS = 50


@cache
def draw(seed: int = 0, patches: int = 400, cases: int = 12, scale: float = 2.0) -> Scores:
    random = np.random.default_rng(seed)
    label = random.integers(0, 2, patches)
    logit = (scale * (label - 0.5 + random.normal(0, 0.8, patches))).round(2).astype(np.float32)
    case = np.array([f"c{number:02}" for number in random.integers(0, cases, patches)], dtype=object)
    return Scores(label, logit, case)


def draw_baseline(scores: Scores) -> BaselineScores:
    noise = np.random.default_rng(9).normal(0, 2, len(scores.label))
    return BaselineScores(0.3, scores.label + noise, 0.4)


@cache
def judged() -> dict:
    scores = draw(1)
    return analyse(scores, fit_calibration(draw(0)), draw_baseline(scores), DRAWS)


def schema(name: str) -> dict:
    """The schema of one entry of metrics.json."""
    whole = json.loads(files("cancernet.evaluation").joinpath("metrics.schema.json").read_text("utf-8"))
    return {"$defs": whole["$defs"], **whole["properties"][name]}


def without_nan(value):
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def check(result: dict) -> None:
    """Every entry is as the schema says, and as JSON has it."""
    content = json.loads(json.dumps(without_nan(result), allow_nan=False))
    for name, value in content.items():
        jsonschema.Draft202012Validator(schema(name)).validate(value)


def test_the_schema_is_a_schema():
    whole = json.loads(files("cancernet.evaluation").joinpath("metrics.schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(whole)


def test_all_entries_are_as_the_schema_says():
    check(judged())


def test_what_validation_chooses_is_plain_and_on_the_uncalibrated_probability():
    scores = draw(0)
    found = fit_calibration(scores)
    assert json.loads(json.dumps(found)) == found
    assert (found["patches"], found["cases"]) == (400, 12)
    assert [(point["fixed"], point["target"]) for point in found["operating_points"]] == list(FIXED)
    fpr, tpr, thresholds = reference.roc_curve(scores.label, scores.probability, drop_intermediate=False)
    best = (tpr - fpr).max()
    # Ties go to the lower threshold.
    assert found["threshold"] == thresholds[np.isclose(tpr - fpr, best, atol=1e-12)].min()
    # Temperature changes neither ranks nor calls.
    hotter = fit_calibration(replace(scores, logit=3 * scores.logit))
    assert hotter["temperature"] == pytest.approx(3 * found["temperature"], rel=1e-5)


@pytest.mark.parametrize("label", [np.zeros(5, int), np.ones(5, int)])
def test_one_class_is_refused_for_a_choice(label):
    with pytest.raises(ValueError, match="both classes"):
        fit_calibration(Scores(label, np.arange(5.0), np.arange(5)))


def test_rates_at_the_threshold_of_validation_are_scikit_learns():
    scores, found = draw(1), judged()["at_validation_threshold"]
    called = scores.probability >= found["threshold"]
    assert found["confusion_matrix"] == reference.confusion_matrix(scores.label, called).tolist()
    expected = {
        "accuracy": reference.accuracy_score(scores.label, called),
        "balanced_accuracy": reference.balanced_accuracy_score(scores.label, called),
        "precision": reference.precision_score(scores.label, called),
        "sensitivity": reference.recall_score(scores.label, called),
        "specificity": reference.recall_score(scores.label, called, pos_label=0),
        "npv": reference.precision_score(scores.label, called, pos_label=0),
        "f1": reference.f1_score(scores.label, called),
        "mcc": reference.matthews_corrcoef(scores.label, called),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_losses_take_the_logit_in_double_precision():
    scores = Scores(np.array([0, 1, 0, 1]), np.array([25, 3, -4, 1], np.float32), np.array(list("abab")))
    found = analyse(scores, draws=5)
    assert found["log_loss"] == pytest.approx(np.mean(np.log1p(np.exp([25.0, -3, -4, -1]))), rel=1e-6)
    assert found["brier"] == pytest.approx(reference.brier_score_loss(scores.label, scores.exact))
    assert found["per_case"][0]["log_loss"] == pytest.approx(np.mean(np.log1p(np.exp([25.0, -4]))), rel=1e-6)


def test_intervals_are_those_of_the_bootstrap():
    scores, found = draw(1), judged()["intervals"]
    for column, threshold in (
        ("at_threshold", 0.5),
        ("at_validation_threshold", judged()["at_validation_threshold"]["threshold"]),
    ):
        single = bootstrap(scores.label, scores.probability, scores.case, threshold, draws=DRAWS)
        exact = bootstrap(scores.label, scores.exact, scores.case, draws=DRAWS, metrics=LOSSES)
        assert list(found[column]) == list(METRICS)
        for name in METRICS:
            assert found[column][name] == vars((exact if name in LOSSES else single)[name])
    means = bootstrap_case_mean([row["sensitivity"] for row in judged()["per_case"]], draws=DRAWS)
    assert found["case_mean"]["sensitivity"] == vars(means)


def test_operating_points_keep_the_threshold_and_show_both_parts():
    validation, test = draw(0), draw(1)
    for point in judged()["operating_points"]:
        assert point["validation"][point["fixed"]] >= point["target"]
        for part, scores in (("validation", validation), ("test", test)):
            called = scores.probability >= point["threshold"]
            assert point[part]["sensitivity"] == pytest.approx(reference.recall_score(scores.label, called))
            assert point[part]["specificity"] == pytest.approx(
                reference.recall_score(scores.label, called, pos_label=0)
            )


def test_calibration_is_judged_before_and_after():
    found = judged()["calibration"]
    assert found["before"]["temperature"] == 1
    assert found["after"]["temperature"] == found["temperature"]
    assert found["before"]["log_loss"] == pytest.approx(judged()["log_loss"])
    assert found["after"]["slope"] == pytest.approx(found["before"]["slope"] * found["temperature"], rel=1e-6)


def test_the_prevalence_alone_ranks_nothing():
    scores, found = draw(1), judged()["baselines"]["prevalence"]
    assert found["auroc"] == 0.5
    assert found["average_precision"] == pytest.approx(scores.label.mean())
    assert found["brier"] == pytest.approx(np.mean((scores.label - 0.3) ** 2))
    assert found["confusion_matrix"][0][1] == found["confusion_matrix"][1][1] == 0
    assert np.isnan(found["precision"])


def test_the_colour_histogram_is_judged_and_compared_as_the_model_is():
    scores = draw(1)
    baseline = replace(scores, logit=draw_baseline(scores).logit)
    found = judged()["baselines"]["colour_histogram"]
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(scores.label, baseline.probability))
    assert found["at_validation_threshold"]["threshold"] == 0.4
    chosen = judged()["at_validation_threshold"]["threshold"]
    pair = paired_difference(
        scores.label, scores.probability, baseline.probability, scores.case, chosen, 0.4, draws=DRAWS, metrics=RATES
    )
    assert found["difference"]["f1"] == vars(pair["f1"])
    assert found["difference"]["auroc"]["a"] == judged()["intervals"]["at_threshold"]["auroc"]["estimate"]
    assert found["difference"]["auroc"]["b"] == pytest.approx(found["auroc"])


def test_without_calibration_and_baselines_their_entries_are_empty():
    found = analyse(draw(1), draws=DRAWS)
    for name in ("at_validation_threshold", "operating_points", "calibration", "baselines"):
        assert found[name] is None
    assert found["intervals"]["at_validation_threshold"] is None
    assert {row["threshold"] for row in found["per_case"]} == {0.5}
    check(found)


@pytest.mark.parametrize(
    "scores",
    [
        Scores(np.array([0, 1, 1, 0, 1]), np.array([0, 1, -1, 2, 0], np.float32), np.array(["a"] * 5, dtype=object)),
        Scores(np.array([0, 0, 0]), np.array([1, 1, 1], np.float32), np.array(["a", "b", "b"], dtype=object)),
        Scores(np.array([1]), np.array([50], np.float32), np.array(["a"], dtype=object)),
    ],
    ids=["one case", "one class, all tied", "one patch"],
)
def test_few_patches_give_nulls_and_no_failure(scores):
    result = analyse(scores, fit_calibration(draw(0)), BaselineScores(0.5, scores.logit, None), DRAWS)
    check(result)
    assert result["baselines"]["colour_histogram"]["at_validation_threshold"] is None


def test_the_order_of_patches_does_not_matter():
    scores = draw(1)
    order = np.random.default_rng(4).permutation(len(scores.label))
    shuffled = Scores(scores.label[order], scores.logit[order], scores.case[order])
    one, other = (without_nan(analyse(s, fit_calibration(draw(0)), draws=DRAWS)) for s in (scores, shuffled))
    assert one["per_case"][0]["case"] == other["per_case"][0]["case"]
    for name in METRICS:
        assert one["intervals"]["at_threshold"][name] == pytest.approx(other["intervals"]["at_threshold"][name])


def test_the_worst_cases_are_named_by_balanced_accuracy():
    rows = judged()["per_case"]
    assert judged()["worst_tenth"] == [
        row["case"] for row in sorted(rows, key=lambda row: row["balanced_accuracy"])[: -(-len(rows) // 10)]
    ]


def test_rates_of_a_matrix():
    assert rates_of([[6, 2], [1, 3]])["sensitivity"] == 0.75
    assert np.isnan(rates_of([[6, 0], [1, 0]])["precision"])
