"""What the figures say, in plain language: each sentence is there because a figure puts it there."""

from collections.abc import Iterator
from typing import NamedTuple

from cancernet.errors import listing
from cancernet.evaluation.report.formatting import count, figure, interval, percent, threshold
from cancernet.evaluation.results import Evaluation
from cancernet.evaluation.values import AtThreshold, Interval, PerMetric

WIDE, NARROW = 0.10, 0.02
"""Widths of the AUROC's interval: models on this archive differ by 0.01 to 0.05."""
LOPSIDED = 0.05
"""Difference of sensitivity and specificity worth a sentence."""
POOR_CASE = 0.6
"""Balanced accuracy of a case that is hardly better than a coin's 0.5."""
FLAT = 0.1
"""Distance of the lowest and the highest tenth of the scores below which a model says nearly the same of all."""
SLOPE_TOLERANCE = 0.1
"""Calibration slopes this near to 1 are called right."""


class Statement(NamedTuple):
    """One or two sentences and where they belong: `strength`, `weakness` or `certainty`."""

    kind: str
    text: str


def describe(metrics: Evaluation) -> list[Statement]:
    """Say what a tested model is good at, where it fails and how sure that is.

    Args:
        metrics: What `metrics.json` holds.
    """
    return [
        *_warnings(metrics),
        *_ranking(metrics),
        *_trade(metrics),
        *_classes(metrics),
        *_cases(metrics),
        *_calibration(metrics),
        *_baseline(metrics),
        *_transfer(metrics),
    ]


def evaluated_at(metrics: Evaluation) -> tuple[AtThreshold, PerMetric[Interval], str]:
    """Return figures, intervals and name of the threshold that counts: validation's where there is one, else 0.5."""
    chosen, bounds = metrics.at_validation_threshold, metrics.intervals.at_validation_threshold
    if chosen is None or bounds is None:
        return metrics, metrics.intervals.at_threshold, "the threshold 0.5"
    if chosen.threshold is None:
        name = "each fold's own threshold from validation"
    else:
        name = f"the threshold chosen on validation ({threshold(chosen.threshold)})"
    return chosen, bounds, name


def _warnings(metrics: Evaluation) -> Iterator[Statement]:
    if metrics.synthetic:
        yield Statement("weakness", "The patches are synthetic: no figure here says anything about tissue.")
    if metrics.leaks:
        yield Statement(
            "weakness",
            "Patches were split at random, so neighbours of the tested patches trained the model: these figures are "
            "higher than they would be on new cases.",
        )
    if not metrics.exposure_known:
        yield Statement(
            "weakness",
            "The weights came from elsewhere and it is unknown which cases trained them: the tested cases may be among "
            "them, and these figures too high.",
        )


def _ranking(metrics: Evaluation) -> Iterator[Statement]:
    area = metrics.auroc
    if area is None:
        yield Statement("certainty", "The tested patches hold one class only, so nothing can be said about ranking.")
        return
    bounds = metrics.intervals.at_threshold.auroc
    kind = "strength" if area > 0.5 else "weakness"
    yield Statement(
        kind,
        f"Of an IDC patch and a benign one, the IDC patch gets the higher score {percent(area)} of the time "
        f"(AUROC {figure(area)}; a coin gets 50 %).",
    )
    if bounds.low is None or bounds.high is None:
        yield Statement("certainty", "With fewer than two cases there is no interval: one case says nothing of others.")
        return
    width = bounds.high - bounds.low
    low, high = figure(bounds.low), figure(bounds.high)
    resampled = f"Resampling the {count(metrics.cases, 'case')}, the AUROC lies between {low} and {high}"
    if width > WIDE:
        text = f"{resampled}, a width of {figure(width)}: too few cases to tell good models of this archive apart."
    elif width > NARROW:
        text = f"{resampled}, a width of {figure(width)}: smaller differences between models need a paired comparison."
    else:
        text = f"{resampled}, a width of {figure(width)}: the second decimal can be trusted."
    yield Statement("certainty", text)
    if bounds.low <= 0.5:
        yield Statement(
            "weakness", "That interval includes 0.5: it is not shown that the model ranks better than chance."
        )


def _trade(metrics: Evaluation) -> Iterator[Statement]:
    chosen = metrics.at_validation_threshold
    if chosen is None:
        yield Statement("certainty", "No threshold was chosen on validation, so calls are evaluated at 0.5 only.")
        return
    (_, alarms), (missed, found) = chosen.confusion_matrix
    (_, alarms_before), (_, found_before) = metrics.confusion_matrix
    gained, more = found - found_before, alarms - alarms_before
    idc = count(found + missed, "IDC patch", "IDC patches")
    text = (
        f"At {evaluated_at(metrics)[2]} the model finds {count(found)} of {idc} "
        f"({percent(chosen.sensitivity)}) and raises {count(alarms, 'false alarm')}"
    )
    if gained == 0 and more == 0:
        text += ", the same calls as at 0.5."
    elif gained >= 0 and more >= 0:
        text += f"; against 0.5 that is {count(gained)} more found for {count(more)} more false alarms."
    else:
        text += f"; against 0.5 that is {count(-more)} fewer false alarms for {count(-gained)} more missed."
    yield Statement("certainty", text)


def _classes(metrics: Evaluation) -> Iterator[Statement]:
    at, bounds, where = evaluated_at(metrics)
    sensitivity, specificity = at.sensitivity, at.specificity
    if sensitivity is None or specificity is None:
        return
    if at.precision is None:
        yield Statement("weakness", f"At {where} nothing is called IDC: all of it is missed.")
        return
    lacking, other = ("IDC", "benign") if sensitivity < specificity else ("benign", "IDC")
    low, high = sorted((sensitivity, specificity))
    wrong = "missed" if lacking == "IDC" else "called IDC"
    if high - low > LOPSIDED:
        yield Statement(
            "weakness",
            f"At {where} it fails on {lacking} patches more often than on {other} ones: {percent(1 - low)} of them are "
            f"{wrong}, while {percent(high)} of the {other} patches are recognised.",
        )
    else:
        yield Statement(
            "strength",
            f"At {where} neither class pays for the other: sensitivity {figure(sensitivity)} "
            f"({interval(bounds.sensitivity)}), specificity {figure(specificity)} "
            f"({interval(bounds.specificity)}).",
        )
    wrong_share = 1 - at.precision
    if wrong_share > 0.25:
        yield Statement(
            "weakness",
            f"Of the patches called IDC {percent(wrong_share)} are benign, at a prevalence of "
            f"{percent(metrics.prevalence)}; where IDC is rarer, more of them will be.",
        )


def _cases(metrics: Evaluation) -> Iterator[Statement]:
    rows = {row.case: row for row in metrics.per_case}
    spread = metrics.case_summary.balanced_accuracy
    worst = [rows[case] for case in metrics.worst_tenth]
    if spread.mean is None or not worst:
        return
    defined = [row.balanced_accuracy for row in rows.values() if row.balanced_accuracy is not None]
    poor = sum(value < POOR_CASE for value in defined)
    text = (
        f"Cases differ: balanced accuracy runs from {figure(spread.lowest)} to {figure(spread.highest)}, "
        f"half of the cases between {figure(spread.quartile_1)} and {figure(spread.quartile_3)}"
    )
    if len(defined) < len(rows):
        text += f" ({count(len(rows) - len(defined), 'case')} of one class only cannot be ranked)"
    yield Statement("certainty", text + ".")
    rates = [(row.sensitivity, row.specificity) for row in worst]
    misses = sum(found is not None and spared is not None and found < spared for found, spared in rates)
    named = listing([row.case for row in worst])
    if misses == len(worst):
        how = "by missing IDC"
    elif not misses:
        how = "by calling benign tissue IDC"
    else:
        how = f"{count(misses)} of {len(worst)} by missing IDC, the rest by false alarms"
    verb = "is the worst case" if len(worst) == 1 else "are the worst tenth"
    lowest = figure(worst[0].balanced_accuracy)
    yield Statement("weakness", f"{named} {verb} (balanced accuracy from {lowest}), {how}.")
    if poor:
        share = f"{count(poor)} of {count(len(defined), 'case')}"
        yield Statement(
            "weakness", f"In {share} the calls are hardly better than a coin (balanced accuracy below {POOR_CASE})."
        )
    else:
        yield Statement("strength", f"No case falls below a balanced accuracy of {POOR_CASE}.")
    pooled = evaluated_at(metrics)[0].balanced_accuracy
    if pooled is not None and abs(pooled - spread.mean) > 0.02:
        side = "lower" if spread.mean < pooled else "higher"
        yield Statement(
            "certainty",
            f"With each case weighing the same, balanced accuracy is {side}: {figure(spread.mean)} instead of "
            f"{figure(pooled)} over all patches, so the cases with most patches do not speak for the rest.",
        )


def _calibration(metrics: Evaluation) -> Iterator[Statement]:
    fitted = metrics.calibration
    if fitted is None:
        return
    before, after = fitted.before, fitted.after
    if before.log_loss is None or after.log_loss is None:
        return
    lowest, highest = (before.reliability[end].mean_predicted for end in (0, -1))
    if highest - lowest < FLAT:
        yield Statement(
            "weakness",
            f"The scores hardly differ: the mean of the lowest tenth is {threshold(lowest)}, that of the highest "
            f"{threshold(highest)}. The model ranks patches but commits itself to none.",
        )
    slope, shift = after.slope, after.intercept_in_the_large
    gain = before.log_loss - after.log_loss
    effect = "lowers" if gain > 0 else "raises"
    scale = "" if fitted.temperature is None else f" ({figure(fitted.temperature, 2)})"
    text = (
        f"The temperature from validation{scale} {effect} the log loss on test from "
        f"{figure(before.log_loss)} to {figure(after.log_loss)}"
    )
    if slope is not None:
        steep = "above 100" if slope > 100 else figure(slope, 2)
        text += f"; after it the calibration slope is {steep}"
        if abs(slope - 1) <= SLOPE_TOLERANCE:
            text += ", about right"
        else:
            text += ": scores are too extreme" if slope < 1 else ": scores are too timid"
    yield Statement("strength" if gain > 0 else "weakness", text + ".")
    if shift is not None and abs(shift) > 0.1:
        direction = "too low: IDC is commoner than it says" if shift > 0 else "too high: IDC is rarer than it says"
        yield Statement(
            "weakness", f"On the whole the calibrated probability is {direction} (shift {figure(shift, 2)})."
        )
    if fitted.bounded:
        yield Statement(
            "weakness", "The temperature lies at the end of its range, so the probabilities are not to be used."
        )


def _baseline(metrics: Evaluation) -> Iterator[Statement]:
    baselines = metrics.baselines
    colour = None if baselines is None else baselines.colour_histogram
    difference = None if colour is None else colour.difference.auroc
    if difference is None or difference.estimate is None or difference.low is None or difference.high is None:
        return
    amount = f"{figure(abs(difference.estimate))} of AUROC (95 % interval of the difference {interval(difference)})"
    if difference.low > 0:
        yield Statement("strength", f"It beats a logistic regression on colour histograms by {amount}.")
    elif difference.high < 0:
        turned = interval(difference.model_copy(update={"low": -difference.high, "high": -difference.low}))
        amount = f"{figure(-difference.estimate)} of AUROC (95 % interval of the difference {turned})"
        yield Statement("weakness", f"A logistic regression on colour histograms beats it by {amount}.")
    else:
        lead = "ahead of" if difference.estimate > 0 else "behind"
        yield Statement(
            "weakness",
            f"It is not shown to beat a logistic regression on colour histograms: it lies {lead} it by {amount}.",
        )


def _transfer(metrics: Evaluation) -> Iterator[Statement]:
    """Whether a threshold that held a rate on validation holds it on the test part too."""
    points = metrics.operating_points or []
    shown = [(point, point.held) for point in points if point.held is not None]
    if not shown:
        return
    point, value = min(shown, key=lambda pair: pair[1] - pair[0].target)
    promise = f"{percent(point.target)} {point.fixed}"
    if point.target - value > 0.02:
        yield Statement(
            "weakness",
            f"A threshold that held {promise} on validation gives {percent(value)} on test: it does not carry over.",
        )
    else:
        yield Statement(
            "strength",
            "All thresholds chosen on validation keep their promise within 2 points on test "
            f"(the tightest: {promise}, on test {percent(value)}).",
        )
