import pytest

from cancernet.errors import listing
from cancernet.evaluation.report.formatting import figure, percent
from cancernet.evaluation.report.model_card import write_model_card
from cancernet.evaluation.report.narrative import describe
from cancernet.evaluation.run_folder import read_run


def altered(record, **changes):
    """The same record with other values, which need not fit together."""
    return record.model_copy(update=changes)


def said(metrics, **changes):
    return " ".join(statement.text for statement in describe(altered(metrics, **changes)))


def test_words_follow_the_figures(folder):
    metrics = read_run(folder).metrics
    plain = said(metrics)
    assert metrics.worst_tenth[0] in plain
    chosen = metrics.at_validation_threshold
    assert f"{chosen.confusion_matrix[1][1]:,} of" in plain
    assert "Patches were split at random" in said(metrics, leaks=True)
    assert "synthetic" in said(metrics, synthetic=True)
    turned = altered(chosen, sensitivity=0.98, specificity=0.5)
    assert "fails on benign patches more often" in said(metrics, at_validation_threshold=turned)
    turned = altered(chosen, sensitivity=0.5, specificity=0.98)
    assert "fails on IDC patches more often" in said(metrics, at_validation_threshold=turned)
    turned = altered(chosen, sensitivity=0.9, specificity=0.91)
    assert "neither class pays" in said(metrics, at_validation_threshold=turned)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.1, 0.3, "It beats a logistic"), (-0.3, -0.1, "beats it by"), (-0.1, 0.3, "not shown to beat")],
)
def test_words_on_the_baseline(folder, low, high, words):
    metrics = read_run(folder).metrics
    colour = metrics.baselines.colour_histogram
    auroc = altered(colour.difference.auroc, estimate=(low + high) / 2, low=low, high=high)
    colour = altered(colour, difference=altered(colour.difference, auroc=auroc))
    assert words in said(metrics, baselines=altered(metrics.baselines, colour_histogram=colour))


def test_words_on_calibration(folder):
    metrics = read_run(folder).metrics
    for slope, shift, words in ((0.5, 0.8, "too extreme"), (1.6, -0.8, "too timid"), (1.02, 0.0, "about right")):
        after = altered(metrics.calibration.after, slope=slope, intercept_in_the_large=shift, log_loss=9.0)
        text = said(metrics, calibration=altered(metrics.calibration, after=after))
        assert words in text
        assert "raises the log loss" in text
        assert ("too low: IDC is commoner" in text) == (shift > 0)
        assert ("too high: IDC is rarer" in text) == (shift < 0)


def test_words_on_scores_that_are_all_alike(folder):
    metrics = read_run(folder).metrics
    assert "hardly differ" not in said(metrics)
    bins = [altered(metrics.calibration.before.reliability[0], mean_predicted=value) for value in (0.45, 0.47)]
    before = altered(metrics.calibration.before, reliability=bins)
    assert "hardly differ" in said(metrics, calibration=altered(metrics.calibration, before=before))


@pytest.mark.parametrize(("width", "words"), [(0.3, "too few cases"), (0.05, "paired comparison"), (0.01, "trusted")])
def test_words_on_the_interval(folder, width, words):
    metrics = read_run(folder).metrics
    auroc = altered(metrics.intervals.at_threshold.auroc, low=0.6, high=0.6 + width)
    bounds = altered(metrics.intervals.at_threshold, auroc=auroc)
    assert words in said(metrics, intervals=altered(metrics.intervals, at_threshold=bounds))


def test_model_card_says_what_it_must(folder):
    card = write_model_card(folder).read_text(encoding="utf-8")
    metrics = read_run(folder).metrics
    for words in (
        "Research, not for diagnosis",
        "One cohort",
        "No external validation",
        "## Calibration",
        "torch 2.11.0",
    ):
        assert words in card
    bounds = metrics.intervals.at_threshold.auroc
    assert f"| AUROC | {figure(metrics.auroc)} ({figure(bounds.low)} to {figure(bounds.high)})" in card
    assert "&#" not in card


def test_numbers_are_written_as_a_browser_writes_them():
    assert figure(0.0625) == "0.063"  # toFixed rounds an exact tie up
    assert figure(-0.00001) == "0.000"
    assert figure(-0.25, 2) == "−0.25"
    assert figure(None) == figure(float("nan")) == "–"
    assert percent(0.999) == "99.9\u00a0%"
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert listing([str(n) for n in range(7)]) == "0, 1, 2, 3, 4 and 2 more"
