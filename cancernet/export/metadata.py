"""Metadata of an exported file, as JSON."""

import json
import math
from pathlib import Path
from typing import Any

from cancernet import __version__
from cancernet.data.stains import REFERENCE_DEVIATION, REFERENCE_MEAN, TISSUE_DENSITY
from cancernet.evaluation.figures import CLASS_NAMES
from cancernet.training.checkpoints import data_state, network_config, recorded_calibration, run_folder

NOTICE = "Research software for patches of H&E-stained breast tissue: never a diagnosis, no decision about a patient."
METRICS = (
    *("auroc", "average_precision", "brier", "log_loss", "threshold", "confusion_matrix", "accuracy"),
    *("balanced_accuracy", "precision", "sensitivity", "specificity", "npv", "f1", "mcc", "at_validation_threshold"),
    *("prevalence", "patches", "cases", "data", "split", "leaks", "synthetic", "exposure_known"),
)
"""Entries of `metrics.json` that are copied into the file."""


def describe(checkpoint: Path, content: dict[str, Any], form: str, dtype: str) -> dict[str, Any]:
    """Collect threshold, class names, split, metrics and version of a checkpoint.

    Args:
        checkpoint: Its path, from which the run folder follows.
        content: Its content.
        form: The format of the export. `weights` has neither scaling nor temperature, `wsinfer` no scaling.
        dtype: Type of the patches, `uint8` or `float32`.

    Returns:
        Values for JSON. `threshold` applies to the probabilities of the file, which are calibrated except for
        `weights`; `threshold_uncalibrated` applies to those of the network without temperature.
    """
    network, calibration = network_config(content), recorded_calibration(content)
    size, state = network["image_size"], data_state(content)
    temperature = 1.0 if calibration is None else float(calibration["temperature"])
    threshold = 0.5 if calibration is None else float(calibration["threshold"])
    plain = form == "weights"
    return {
        "format": form,
        "version": __version__,
        "notice": NOTICE,
        **network,
        "class_names": list(CLASS_NAMES),
        "positive_class": "IDC",
        "input": {**_input(form, size, dtype), "stain_normalization": _stain_normalization(state)},
        "output": _output(form, network["classes"], calibrated=not plain and calibration is not None),
        "calibrated": calibration is not None,
        "temperature": temperature,
        "threshold": threshold if plain else move_threshold(threshold, temperature),
        "threshold_uncalibrated": threshold,
        "split": state.get("description") or None,
        "exposure_known": bool(state.get("exposure", {}).get("known", "exposure" in state)),
        "converted_from": content["cancernet"].get("converted_from"),
        "metrics": _metrics(checkpoint),
    }


def _input(form: str, size: int, dtype: str) -> dict[str, Any]:
    scaled, first = form in ("weights", "wsinfer"), form == "wsinfer"
    return {
        "name": "image",
        "layout": "NCHW" if first else "NHWC",
        "shape": [None, 3, size, size] if first else [None, size, size, 3],
        "colour": "RGB",
        "dtype": "float32" if scaled else dtype,
        "range": [0, 1] if scaled else [0, 255],
    }


def _output(form: str, classes: int, calibrated: bool) -> dict[str, Any]:
    how = "calibrated" if calibrated else "uncalibrated"
    if form == "wsinfer":
        meaning = f"their softmax is the probabilities of benign and IDC, {how}"
        return {"name": "logits", "shape": [None, 2], "meaning": meaning}
    units = "probabilities of benign and IDC" if classes == 2 else "probability of IDC"
    return {"name": "probability", "shape": [None, classes], "meaning": f"{units}, {how}"}


def _stain_normalization(state: dict[str, Any]) -> dict[str, Any] | None:
    """Return how to normalise the patches of a case before the model sees them; None where they stay unchanged.

    An exported model sees single patches, so it cannot measure the stains of a case.
    """
    share = state.get("arguments", {}).get("stain_normalization", 0.0)
    if share == 0:
        return None
    return {
        "density": "-ln((v + 1) / 256) of v from 0 to 255",
        "tissue": f"pixels whose mean density over the channels is above {TISSUE_DENSITY}",
        "case": "mean and standard deviation of the density of a case's tissue, per channel; of both, what they differ "
        "by from those below counts with the share",
        "share": share,
        "change": "(density - mean of the case) / standard deviation of the case, then times and plus those below",
        "mean": list(REFERENCE_MEAN),
        "standard_deviation": list(REFERENCE_DEVIATION),
    }


def move_threshold(threshold: float, temperature: float) -> float:
    """Translate a threshold on uncalibrated probabilities into the equivalent one on calibrated probabilities.

    Examples:
        >>> round(move_threshold(0.3, temperature=2.0), 4)
        0.3956
    """
    if not 0 < threshold < 1:
        return threshold  # all or no patches are called IDC in both cases
    return 1 / (1 + math.exp(-math.log(threshold / (1 - threshold)) / temperature))


def _metrics(checkpoint: Path) -> dict[str, Any] | None:
    """Return the test metrics of the run folder if they belong to this checkpoint."""
    file = run_folder(checkpoint) / "metrics.json"
    try:
        metrics = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(metrics, dict) or metrics.get("checkpoint") != checkpoint.name:
        return None
    return {name: metrics[name] for name in METRICS if name in metrics}
