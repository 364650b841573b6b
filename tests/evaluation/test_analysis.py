import json
from dataclasses import replace
from functools import cache

import jsonschema
import numpy as np
import pytest
from sklearn import metrics as reference

from cancernet.evaluation.analysis import Scores, analyse, fit_calibration
from cancernet.evaluation.baselines import BaselineScores
from cancernet.evaluation.bootstrap import bootstrap, bootstrap_case_mean, paired_difference
from cancernet.evaluation.metrics import LOSSES, METRICS, RANKS, RATES
from cancernet.evaluation.results import (
    Analysis,
    Comparison,
    ContextResult,
    PredictionsOrigin,
    StoredCalibration,
    TestMetrics,
)
from cancernet.evaluation.thresholds import FIXED
from cancernet.evaluation.values import Difference, Figures, Interval, PerMetric, Rates

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
def evaluated() -> Analysis:
    scores = draw(1)
    return analyse(scores, fit_calibration(draw(0)), draw_baseline(scores), DRAWS)


def check(result: Analysis) -> None:
    """The entries are as the schema says once they are JSON, and come back as they were."""
    text = result.model_dump_json()
    jsonschema.Draft202012Validator(Analysis.model_json_schema()).validate(json.loads(text))
    assert Analysis.model_validate_json(text) == result


@pytest.mark.parametrize("kind", [TestMetrics, PredictionsOrigin, ContextResult, Comparison, StoredCalibration])
def test_schemas_are_schemas(kind):
    schema = kind.model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["required"]) <= set(schema["properties"]) == set(kind.model_fields)


def test_entries_are_those_of_every_metric_in_order():
    assert tuple(PerMetric.model_fields) == METRICS == RANKS + RATES + LOSSES
    assert set(Rates.model_fields) == set(RATES)
    assert set(Figures.model_fields) == {*METRICS, "threshold", "confusion_matrix"}


def test_all_entries_are_as_the_schema_says():
    check(evaluated())


def test_what_validation_chooses_is_plain_and_on_the_uncalibrated_probability():
    scores = draw(0)
    found = fit_calibration(scores)
    assert json.loads(json.dumps(found.model_dump())) == found.model_dump()
    assert (found.patches, found.cases) == (400, 12)
    assert [(point.fixed, point.target) for point in found.operating_points] == list(FIXED)
    fpr, tpr, thresholds = reference.roc_curve(scores.label, scores.probability, drop_intermediate=False)
    best = (tpr - fpr).max()
    # Ties go to the lower threshold.
    assert found.threshold == thresholds[np.isclose(tpr - fpr, best, atol=1e-12)].min()
    # Temperature changes neither ranks nor calls.
    hotter = fit_calibration(replace(scores, logit=3 * scores.logit))
    assert hotter.temperature == pytest.approx(3 * found.temperature, rel=1e-5)


@pytest.mark.parametrize("label", [np.zeros(5, int), np.ones(5, int)])
def test_one_class_is_refused_for_a_choice(label):
    with pytest.raises(ValueError, match="both classes"):
        fit_calibration(Scores(label, np.arange(5.0), np.arange(5)))


def test_rates_at_the_threshold_of_validation_are_scikit_learns():
    scores, found = draw(1), evaluated().at_validation_threshold
    called = scores.probability >= found.threshold
    assert [list(row) for row in found.confusion_matrix] == reference.confusion_matrix(scores.label, called).tolist()
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
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected)


def test_losses_take_the_logit_in_double_precision():
    scores = Scores(np.array([0, 1, 0, 1]), np.array([25, 3, -4, 1], np.float32), np.array(list("abab")))
    found = analyse(scores, draws=5)
    assert found.log_loss == pytest.approx(np.mean(np.log1p(np.exp([25.0, -3, -4, -1]))), rel=1e-6)
    assert found.brier == pytest.approx(reference.brier_score_loss(scores.label, scores.exact))
    assert found.per_case[0].log_loss == pytest.approx(np.mean(np.log1p(np.exp([25.0, -4]))), rel=1e-6)


def test_intervals_are_those_of_the_bootstrap():
    scores, found = draw(1), evaluated().intervals
    for column, threshold in (
        ("at_threshold", 0.5),
        ("at_validation_threshold", evaluated().at_validation_threshold.threshold),
    ):
        single = bootstrap(scores.label, scores.probability, scores.case, threshold, draws=DRAWS)
        exact = bootstrap(scores.label, scores.exact, scores.case, draws=DRAWS, metrics=LOSSES)
        shown = dict(getattr(found, column))
        assert list(shown) == list(METRICS)
        for name in METRICS:
            assert shown[name] == Interval.model_validate((exact if name in LOSSES else single)[name])
    means = bootstrap_case_mean([row.sensitivity for row in evaluated().per_case], draws=DRAWS)
    assert found.case_mean.sensitivity == Interval.model_validate(means)


def test_operating_points_keep_the_threshold_and_show_both_parts():
    validation, test = draw(0), draw(1)
    for point in evaluated().operating_points:
        assert getattr(point.validation, point.fixed) >= point.target
        for rates, scores in ((point.validation, validation), (point.test, test)):
            called = scores.probability >= point.threshold
            assert rates.sensitivity == pytest.approx(reference.recall_score(scores.label, called))
            assert rates.specificity == pytest.approx(reference.recall_score(scores.label, called, pos_label=0))


def test_calibration_is_evaluated_before_and_after():
    found = evaluated().calibration
    assert found.before.temperature == 1
    assert found.after.temperature == found.temperature
    assert found.before.log_loss == pytest.approx(evaluated().log_loss)
    assert found.after.slope == pytest.approx(found.before.slope * found.temperature, rel=1e-6)


def test_the_prevalence_alone_ranks_nothing():
    scores, found = draw(1), evaluated().baselines.prevalence
    assert found.auroc == 0.5
    assert found.average_precision == pytest.approx(scores.label.mean())
    assert found.brier == pytest.approx(np.mean((scores.label - 0.3) ** 2))
    assert found.confusion_matrix[0][1] == found.confusion_matrix[1][1] == 0
    assert found.precision is None


def test_the_colour_histogram_is_evaluated_and_compared_as_the_model_is():
    scores = draw(1)
    baseline = replace(scores, logit=draw_baseline(scores).logit)
    found = evaluated().baselines.colour_histogram
    assert found.auroc == pytest.approx(reference.roc_auc_score(scores.label, baseline.probability))
    assert found.at_validation_threshold.threshold == 0.4
    chosen = evaluated().at_validation_threshold.threshold
    pair = paired_difference(
        scores.label, scores.probability, baseline.probability, scores.case, chosen, 0.4, draws=DRAWS, metrics=RATES
    )
    assert found.difference.f1 == Difference.model_validate(pair["f1"])
    assert found.difference.auroc.a == evaluated().intervals.at_threshold.auroc.estimate
    assert found.difference.auroc.b == pytest.approx(found.auroc)


def test_without_calibration_and_baselines_their_entries_are_empty():
    found = analyse(draw(1), draws=DRAWS)
    for name in ("at_validation_threshold", "operating_points", "calibration", "baselines"):
        assert getattr(found, name) is None
    assert found.intervals.at_validation_threshold is None
    assert {row.threshold for row in found.per_case} == {0.5}
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
    assert result.baselines.colour_histogram.at_validation_threshold is None


def test_the_order_of_patches_does_not_matter():
    scores = draw(1)
    order = np.random.default_rng(4).permutation(len(scores.label))
    shuffled = Scores(scores.label[order], scores.logit[order], scores.case[order])
    one, other = (analyse(s, fit_calibration(draw(0)), draws=DRAWS) for s in (scores, shuffled))
    assert one.per_case[0].case == other.per_case[0].case
    for name in METRICS:
        assert dict(getattr(one.intervals.at_threshold, name)) == pytest.approx(
            dict(getattr(other.intervals.at_threshold, name))
        )


def test_the_worst_cases_are_named_by_balanced_accuracy():
    rows = evaluated().per_case
    assert evaluated().worst_tenth == [
        row.case for row in sorted(rows, key=lambda row: row.balanced_accuracy)[: -(-len(rows) // 10)]
    ]
