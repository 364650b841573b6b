"""Result files as types: `metrics.json`, `predictions.json`, `context.json`, `comparison.json`, a stored calibration.

JSON schemas are generated: `TestMetrics.model_json_schema()`.
"""

from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import Field

from cancernet.evaluation.values import (
    AtThreshold,
    Baselines,
    Bootstrap,
    CalibrationResult,
    CaseMetrics,
    CaseSummary,
    Count,
    Difference,
    Figures,
    Fraction,
    Interval,
    Intervals,
    Number,
    PerMetric,
    Record,
    Share,
    ShareAgreement,
    TestedPoint,
    Threshold,
)

T = TypeVar("T")
SYNTHETIC_WARNING = "Synthetic data, made by a program: no figure says anything about tissue."


class Extent(Record):
    """How much of the data was run."""

    evaluated: Count
    patches: Count = Field(description="Of which the whole consists.")


class Completeness(Record):
    """Whether results are of all patches, and the files that belong to them."""

    whole: bool = Field(default=True, description="false for a part: under limit_test_batches, limit_predict_batches.")
    extent: Extent | None = Field(default=None, description="Patches run; null in files of version 0.1.0.")
    sha256: dict[str, str] | None = Field(
        default=None, description="Checksums by name: of the files next to this one, of its own entries."
    )

    @property
    def part_of(self) -> str | None:
        """How many patches of how many these results are of; None where they are of all."""
        if self.whole:
            return None
        if self.extent is None:
            return "some of the patches"
        return f"{self.extent.evaluated:,} of {self.extent.patches:,} patches"


class Provenance(Record):
    """Data, split and checkpoint behind predictions."""

    data: str
    fingerprint: str
    synthetic: bool = Field(description="Made by a program: says nothing about tissue.")
    split: str
    seed: int
    folds: int | None
    fold: int | None
    leaks: bool = Field(description="Split by patch: neighbours of one tumour on both sides.")
    checkpoint: str
    version: str


class Origin(Record):
    """What predictions come from."""

    data: str
    fingerprint: str
    synthetic: bool
    leaks: bool
    checkpoint: str
    threshold: float | None = Field(description="Chosen on validation; null where the checkpoint was not calibrated.")
    temperature: float | None = Field(description="Fitted on validation; null likewise.")


class PredictionsOrigin(Origin, Provenance, Completeness):
    """`predictions.json`: what predictions that were not evaluated come from."""


class Analysis(Figures):
    """What scores and labels of the test part show."""

    prevalence: Fraction
    patches: Count
    cases: Count
    part: Literal["test"]
    at_validation_threshold: AtThreshold | None
    operating_points: list[TestedPoint] | None
    calibration: CalibrationResult | None
    intervals: Intervals
    per_case: list[CaseMetrics] = Field(description="At the validation threshold where there is one, otherwise at 0.5.")
    case_summary: CaseSummary
    worst_tenth: list[str] = Field(description="Cases of the lowest balanced accuracy, worst first.")
    baselines: Baselines | None
    idc_share: ShareAgreement | None = Field(
        default=None, description="Of the calls in `per_case`; null in files of version 0.1."
    )


class Evaluation(Analysis, Provenance):
    """Results on the test part, of one run or of pooled folds."""

    exposure_known: bool = Field(default=True, description="Whether it is known which cases trained the weights.")

    @property
    def validation_threshold(self) -> float | None:
        """The threshold chosen on validation; None where there is none, or each pooled fold has its own."""
        return None if self.at_validation_threshold is None else self.at_validation_threshold.threshold

    @property
    def origin(self) -> Origin:
        """What the predictions come from."""
        return Origin(
            data=self.data,
            fingerprint=self.fingerprint,
            synthetic=self.synthetic,
            leaks=self.leaks,
            checkpoint=self.checkpoint,
            threshold=self.validation_threshold,
            temperature=None if self.calibration is None else self.calibration.temperature,
        )


class Source(Record):
    """The archive that the patches come from."""

    kind: Literal["zip", "folder", "files", "csv"]
    name: str
    fingerprint: str
    audit: dict[str, Any]


class PartSummary(Record):
    """What a part of the split holds."""

    part: Literal["train", "validation", "test", "outside"]
    patches: Count
    cases: Count
    idc: Count
    prevalence: Share


class DataFlow(Record):
    """From the source to the parts."""

    source: Source
    parts: list[PartSummary]
    left_out: Count = Field(description="Patches whose very image an earlier part holds.")
    rejects: dict[str, Count] = Field(description="Number of files by the reason that they were rejected for.")
    absent: list[str] = Field(description="Cases that the split names and the source lacks.")


class LeakProof(Record):
    """What two of training, validation and test share, counted over all that the model has seen."""

    unit: Literal["case", "patch"]
    cases_in_two_parts: Count
    patches_in_two_parts: Count
    images_in_two_parts: Count
    left_out: Count


class Environment(Record):
    """When and on what the test ran."""

    time: str = Field(json_schema_extra={"format": "date-time"})
    seconds: float = Field(ge=0)
    commit: str | None
    python: str
    platform: str
    processor: str
    devices: Annotated[list[str], Field(min_length=1)]
    versions: dict[str, str | None]


class TestMetrics(Evaluation, Completeness):
    """`metrics.json`: what `cancernet test` found. The positive class is IDC; null stands for what is undefined."""

    __test__: ClassVar[bool] = False  # not a test case for pytest

    loss: Number = Field(description="Mean loss of the test batches.")
    network: str = "cancernet"
    data_flow: DataFlow
    leak_proof: LeakProof | None = Field(description="null where it is not known what the model has seen.")
    environment: Environment


class StoredPoint(Record):
    """An operating point as a checkpoint holds it, with the rates on validation."""

    name: str
    fixed: Literal["sensitivity", "specificity"]
    target: float
    threshold: Threshold
    sensitivity: Share
    specificity: Share


class StoredCalibration(Record):
    """What was chosen on validation, as a checkpoint holds it; the first version stored no metrics."""

    threshold: Threshold
    temperature: float = Field(gt=0)
    bounded: bool
    operating_points: list[StoredPoint]
    auroc: Share = None
    average_precision: Share = None
    balanced_accuracy: Share = Field(default=None, description="At the threshold.")
    patches: Count
    cases: Count


class ContextCases(Record):
    """Cases that the context correction was fitted on, or scored on."""

    cases: list[str]
    parts: list[str]
    patches: Count
    idc: Count
    with_neighbours: Count


class RingCoefficients(Record):
    """Weights of one ring of neighbours (see `context.correction`)."""

    u: float
    w: float


class PerContextMetric(Record, Generic[T]):
    """One entry for each metric that the context stage reports."""

    auroc: T
    average_precision: T
    balanced_accuracy: T
    f1: T


class ContextResult(Record):
    """`context.json`: what neighbours change on cases that the correction was not fitted on."""

    version: str
    origin: Origin
    neighbourhood: Literal[3, 5]
    ridge: float
    coefficients: list[RingCoefficients]
    fitted: ContextCases
    scored: ContextCases
    threshold: Threshold
    intervals: Bootstrap
    patch_wise: PerContextMetric[Interval]
    context: PerContextMetric[Interval]
    difference: PerContextMetric[Difference] = Field(description="Context (a) less patch-wise (b).")
    words: list[str]


class ComparedRun(Provenance):
    """One run of a comparison; the first has no differences."""

    name: str
    folder: str
    threshold: Threshold | None = Field(description="Chosen on validation.")
    at_threshold: PerMetric[Interval]
    at_validation_threshold: PerMetric[Interval] | None
    difference_at_threshold: PerMetric[Difference] | None = None
    difference_at_validation_threshold: PerMetric[Difference] | None = None


class Comparison(Bootstrap):
    """`comparison.json`: runs on the same test patches, each with its difference from the first (this run is a)."""

    patches: Count
    cases: Count
    prevalence: Share
    warnings: list[str]
    runs: list[ComparedRun]
