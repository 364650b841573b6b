"""The torchmetrics collection that each stage keeps; the positive class is IDC."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    BinaryAveragePrecision,
    BinaryConfusionMatrix,
    BinaryF1Score,
    BinaryMatthewsCorrCoef,
    BinaryNegativePredictiveValue,
    BinaryPrecision,
    BinaryPrecisionRecallCurve,
    BinaryRecall,
    BinaryROC,
    BinarySpecificity,
    BinaryStatScores,
)

CURVES = ("confusion_matrix", "roc", "precision_recall_curve")
"""Members of the collection that are no single number."""


class BinaryBalancedAccuracy(BinaryStatScores):
    """Mean of sensitivity and specificity; 0 for a class that is absent, as torchmetrics has it for recall."""

    def compute(self) -> Tensor:
        """Return the balanced accuracy, a scalar in [0, 1]."""
        tp, fp, tn, fn = self._final_state()
        return (tp / (tp + fn).clamp(min=1) + tn / (tn + fp).clamp(min=1)) / 2


def build_metrics(threshold: float = 0.5) -> MetricCollection:
    """Return the collection: update it with probabilities (B,) float32 and labels (B,) int64.

    Args:
        threshold: A patch is called IDC where its probability reaches it.

    Returns:
        `auroc`, `average_precision` (exact, from all scores), `accuracy`, `balanced_accuracy`, `precision`,
        `sensitivity`, `specificity`, `npv`, `f1`, `mcc`, and the members named in `CURVES`.
    """
    # torchmetrics calls positive what lies above its threshold; the next number below makes that "at or above".
    below = float(np.nextafter(np.float32(threshold), np.float32(0)))
    # Labels and probabilities are known to be valid: checking them would only wait for the GPU. Exact curves need no
    # number of bins.
    scores = {
        "accuracy": BinaryAccuracy(threshold=below, validate_args=False),
        "balanced_accuracy": BinaryBalancedAccuracy(threshold=below, validate_args=False),
        "precision": BinaryPrecision(threshold=below, validate_args=False),
        "sensitivity": BinaryRecall(threshold=below, validate_args=False),
        "specificity": BinarySpecificity(threshold=below, validate_args=False),
        "npv": BinaryNegativePredictiveValue(threshold=below, validate_args=False),
        "f1": BinaryF1Score(threshold=below, validate_args=False),
    }
    ranks = {
        "auroc": BinaryAUROC(validate_args=False),
        "average_precision": BinaryAveragePrecision(validate_args=False),
        "roc": BinaryROC(validate_args=False),
        "precision_recall_curve": BinaryPrecisionRecallCurve(validate_args=False),
    }
    matrices = {
        "mcc": BinaryMatthewsCorrCoef(threshold=below, validate_args=False),
        "confusion_matrix": BinaryConfusionMatrix(threshold=below, validate_args=False),
    }
    return MetricCollection({**ranks, **scores, **matrices}, compute_groups=[list(ranks), list(scores), list(matrices)])


class StageMetrics(nn.Module):
    """The metrics of one stage, and its mean loss."""

    def __init__(self) -> None:
        super().__init__()
        self.collection = build_metrics()
        self.loss = MeanMetric()

    def update(self, logit: Tensor, label: Tensor, loss: Tensor) -> None:
        """Take in a batch: logits of IDC (B,), labels (B,) int64, and the batch's mean loss."""
        self.collection.update(probability_of(logit.detach()), label)
        self.loss.update(loss.detach(), len(label))

    def compute(self) -> dict[str, Any]:
        """Return the members of `build_metrics`, and `loss`."""
        values = self.collection.compute()
        # A whole 0 where it is undefined, which Lightning does not average over processes without a warning.
        return {**values, "mcc": values["mcc"].float(), "loss": self.loss.compute()}

    def state(self) -> list[dict[str, Any]]:
        """Return all that was taken in since the last reset, in the CPU's memory; see `restore`."""
        return [
            {"updates": metric.update_count, **{name: _on_cpu(value) for name, value in metric.metric_state.items()}}
            for metric in self._holders()
        ]

    def restore(self, state: list[dict[str, Any]]) -> None:
        """Go on from the state of another instance, on the device of this one."""
        self.reset()
        for metric, values in zip(self._holders(), state, strict=True):
            for name in metric.metric_state:
                setattr(metric, name, _on_device(values[name], metric.device))
            metric._update_count = values["updates"]

    def _holders(self) -> list[Metric]:
        """Return one metric of each group that shares its state, and the loss."""
        shared = [self.collection.__getitem__(group[0], False) for group in self.collection.compute_groups.values()]
        return [*shared, self.loss]

    def reset(self) -> None:
        """Forget all batches."""
        self.collection.reset()
        self.loss.reset()


def _on_device(value: Tensor | list[Tensor], device: torch.device) -> Tensor | list[Tensor]:
    """Copy a state: one that lies in a file is not to be written to."""
    if isinstance(value, list):
        return [part.to(device, copy=True) for part in value]
    return value.to(device, copy=True)


def _on_cpu(value: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
    if isinstance(value, list):
        return [torch.cat(value).cpu()] if value else []
    return value.cpu()


def probability_of(logit: Tensor) -> Tensor:
    """Return the probability of IDC in single precision, rounded once: exactly what the files of predictions hold.

    The sigmoid in single precision ties logits that the files keep apart, which moves the AUROC of a model whose
    probabilities lie close together. Apple's GPUs know no double precision; there it stays at that.

    Examples:
        >>> probability_of(torch.tensor([0.0, 2.0]))
        tensor([0.5000, 0.8808])
    """
    return torch.sigmoid(logit) if logit.device.type == "mps" else torch.sigmoid(logit.double()).float()
