"""Values of result files as types: rates at a threshold, intervals, calibration, cases (see `results` for the files).

A value that is undefined (0 / 0) is null in a file and None here; the models turn the NaN of numerical functions into
None. Entries that a later version added are ignored.
"""

import math
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

T = TypeVar("T")


def _none_for_nan(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


Number = Annotated[float | None, BeforeValidator(_none_for_nan)]
"""A number, None where undefined."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[Fraction | None, BeforeValidator(_none_for_nan)]
"""A number in [0, 1], None where undefined."""
Correlation = Annotated[Annotated[float, Field(ge=-1, le=1)] | None, BeforeValidator(_none_for_nan)]
Count = Annotated[int, Field(ge=0)]
Threshold = Annotated[
    float,
    Field(ge=0, description="IDC is called where the uncalibrated probability is at least this; above 1 for none."),
]
Matrix = Annotated[
    tuple[tuple[Count, Count], tuple[Count, Count]],
    Field(description="[[true negatives, false positives], [false negatives, true positives]]"),
]


class Record(BaseModel):
    """An object of a result file."""

    model_config = ConfigDict(frozen=True, from_attributes=True, revalidate_instances="subclass-instances")


class Rates(Record):
    """Rates of calls at one threshold."""

    balanced_accuracy: Share
    accuracy: Share
    sensitivity: Share
    specificity: Share
    precision: Share
    npv: Share
    f1: Share
    mcc: Correlation


class AtThreshold(Rates):
    """Confusion matrix and rates at one threshold."""

    threshold: Threshold | None = Field(description="null where each pooled fold has its own.")
    confusion_matrix: Matrix


class Figures(AtThreshold):
    """All metrics, the rates at one threshold."""

    auroc: Share
    average_precision: Share
    brier: Share
    log_loss: Number = Field(description="Mean negative log-likelihood in nats.")


class PerMetric(Record, Generic[T]):
    """One entry a metric, in the order of `metrics.METRICS`."""

    auroc: T
    average_precision: T
    balanced_accuracy: T
    accuracy: T
    sensitivity: T
    specificity: T
    precision: T
    npv: T
    f1: T
    mcc: T
    brier: T
    log_loss: T


class Interval(Record):
    """A metric on all patches, and its percentile interval over cases."""

    estimate: Number
    low: Number
    high: Number
    draws: Count = Field(description="Draws in which the metric is defined.")


class Difference(Interval):
    """a - b, on the same draws of cases."""

    a: Number
    b: Number


class Bootstrap(Record):
    """Settings of the bootstrap."""

    level: float = Field(gt=0, lt=1)
    draws: Count
    seed: int
    unit: Literal["case"]


class BothIntervals(Record):
    """Intervals of each metric; only the rates differ."""

    at_threshold: PerMetric[Interval]
    at_validation_threshold: PerMetric[Interval] | None


class Intervals(BothIntervals, Bootstrap):
    """Intervals of each metric, and of its mean over cases."""

    case_mean: PerMetric[Interval] = Field(description="Mean over cases, each case weighing the same.")


class BothRates(Record):
    """What a threshold gives on validation."""

    sensitivity: Share
    specificity: Share


class FourRates(BothRates):
    """What a threshold gives on test."""

    precision: Share
    npv: Share


class TestedPoint(Record):
    """A threshold chosen on validation to hold one rate at a target."""

    __test__: ClassVar[bool] = False  # not a test case for pytest

    name: str
    fixed: Literal["sensitivity", "specificity"]
    target: float = Field(gt=0, le=1)
    threshold: Threshold | None = Field(description="null where each pooled fold has its own.")
    validation: BothRates
    test: FourRates

    @property
    def held(self) -> float | None:
        """The fixed rate on test."""
        return self.test.sensitivity if self.fixed == "sensitivity" else self.test.specificity


class ReliabilityBin(Record):
    """Patches of similar probability, with the 95 % Wilson interval, over patches, of their share of IDC."""

    mean_predicted: Fraction
    observed: Fraction
    count: Count
    low: Fraction
    high: Fraction


class CalibrationSummary(Record):
    """How well probabilities agree with frequencies at one temperature."""

    temperature: float = Field(gt=0)
    brier: Share
    log_loss: Number
    slope: Number
    intercept: Number
    intercept_in_the_large: Number
    expected_calibration_error: Share
    reliability: list[ReliabilityBin] = Field(description="Bins of about equal mass, by rising probability.")


class CalibrationResult(Record):
    """Calibration on test, before and after the temperature of validation."""

    temperature: float | None = Field(gt=0, description="null where each pooled fold has its own.")
    bounded: bool = Field(description="The temperature lies at an end of the range searched.")
    before: CalibrationSummary
    after: CalibrationSummary


class CaseMetrics(Rates):
    """Metrics of one case."""

    case: str
    patches: Count
    idc: Count
    threshold: Threshold
    tn: Count
    fp: Count
    fn: Count
    tp: Count
    prevalence: Share
    auroc: Share
    average_precision: Share
    brier: Share
    log_loss: Number
    mean_probability: Share


class Spread(Record):
    """Distribution of a metric over the cases that define it."""

    cases: Count
    mean: Number
    sd: Number
    lowest: Number
    quartile_1: Number
    median: Number
    quartile_3: Number
    highest: Number


class CaseSummary(PerMetric[Spread]):
    """Spread of each metric over cases."""

    prevalence: Spread
    mean_probability: Spread


class ShareAgreement(Record):
    """The share of a case's patches that is called IDC, next to the share that the expert outlined."""

    cases: Count
    spearman: Interval = Field(description="Rank correlation of the two shares.")
    mean_difference: Interval = Field(description="Predicted less the expert's, each case weighing the same.")
    sd: Number = Field(description="Standard deviation of the differences, divided by n - 1.")
    lower_limit: Number = Field(description="Limit of agreement: mean difference - 1.96 standard deviations.")
    upper_limit: Number = Field(description="Limit of agreement: mean difference + 1.96 standard deviations.")


class ColourHistogram(Figures):
    """Logistic regression on colour histograms, trained on the run's training part."""

    at_validation_threshold: AtThreshold | None
    intervals: BothIntervals
    difference: PerMetric[Difference] = Field(
        description="Model (a) less baseline (b); rates at the validation threshold of each, or at 0.5 if one has none."
    )


class Baselines(Record):
    """What the model has to beat."""

    prevalence: Figures = Field(description="The training part's prevalence as the probability of every patch.")
    colour_histogram: ColourHistogram
