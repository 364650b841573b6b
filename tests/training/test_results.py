"""What a test of a calibrated run writes."""

import json
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch

from cancernet.checkpoints import read_checkpoint, replace_checkpoint
from cancernet.cli import main
from cancernet.evaluation.calibration import apply_temperature
from cancernet.evaluation.pictures import shrink
from cancernet.evaluation.results import TestMetrics
from cancernet.model.activation_map import class_activation
from cancernet.training.checkpoints import recorded_calibration
from cancernet.training.task import ClassificationTask
from tests.training.calibrated import CASES, PARTS, QUIET


def read_metrics(calibrated_run: Path) -> dict:
    return json.loads((calibrated_run / "metrics.json").read_text())


def test_metrics_are_as_the_schema_says(calibrated_run):
    schema = TestMetrics.model_json_schema()
    jsonschema.Draft202012Validator(schema).validate(read_metrics(calibrated_run))


def test_results_are_evaluated_at_the_threshold_of_the_checkpoint(calibrated_run):
    metrics = read_metrics(calibrated_run)
    found = recorded_calibration(read_checkpoint(calibrated_run / "checkpoints" / "best.ckpt"))
    assert found is not None
    assert metrics["at_validation_threshold"]["threshold"] == found["threshold"]
    assert metrics["calibration"]["temperature"] == found["temperature"]
    table = pd.read_parquet(calibrated_run / "predictions.parquet")
    evaluated = table[table["part"] == "test"]
    called = evaluated["probability"].to_numpy() >= found["threshold"]
    label = evaluated["label"].to_numpy()
    cells = np.bincount(2 * label + called, minlength=4)
    assert metrics["at_validation_threshold"]["confusion_matrix"] == cells.reshape(2, 2).tolist()
    calibrated = apply_temperature(table["logit"].to_numpy(), found["temperature"])
    np.testing.assert_allclose(table["probability_calibrated"], calibrated, atol=1e-6)


def test_the_headline_is_the_estimate_of_the_intervals(calibrated_run):
    metrics = read_metrics(calibrated_run)
    for name, interval in metrics["intervals"]["at_threshold"].items():
        if interval["estimate"] is not None:
            assert metrics[name] == pytest.approx(interval["estimate"], abs=1e-6), name


def test_cases_outside_the_split_are_predicted_and_count_in_no_figure(calibrated_run):
    metrics, table = read_metrics(calibrated_run), pd.read_parquet(calibrated_run / "predictions.parquet")
    assert {case: part for case, part in PARTS.items() if part in ("test", "outside")} == dict(
        table[["case", "part"]].drop_duplicates().itertuples(index=False)
    )
    assert metrics["patches"] == 60
    assert metrics["cases"] == 3
    assert [row["case"] for row in metrics["per_case"]] == CASES[7:10]


def test_the_data_flow_and_the_proof_that_nothing_leaks_are_counted(calibrated_run):
    metrics = read_metrics(calibrated_run)
    assert [(part["part"], part["cases"]) for part in metrics["data_flow"]["parts"]] == [
        ("train", 5),
        ("validation", 2),
        ("test", 3),
        ("outside", 2),
    ]
    assert metrics["leak_proof"] == {
        "unit": "case",
        "cases_in_two_parts": 0,
        "patches_in_two_parts": 0,
        "images_in_two_parts": 0,
        "left_out": 0,
    }
    assert metrics["leaks"] is False
    assert metrics["baselines"]["colour_histogram"]["auroc"] > 0.8


def test_pictures_belong_to_the_predictions(calibrated_run, store):
    table = pd.read_parquet(calibrated_run / "predictions.parquet")
    with np.load(calibrated_run / "pictures.npz") as pictures:
        rows = pd.Index(store.index["path"]).get_indexer(table["path"])
        images = store.gather(rows)
        np.testing.assert_array_equal(pictures["thumbnail"], shrink(images))
        mistakes = pictures["mistake_row"]
        np.testing.assert_array_equal(pictures["mistake_image"], images[mistakes])
    threshold = read_metrics(calibrated_run)["at_validation_threshold"]
    (_, false_positives), (false_negatives, _) = threshold["confusion_matrix"]
    chosen = table.iloc[mistakes]
    assert set(chosen["part"]) <= {"test"}
    assert (chosen["label"] == 0).sum() == min(24, false_positives)
    assert (chosen["label"] == 1).sum() == min(24, false_negatives)
    assert chosen[chosen["label"] == 0]["logit"].is_monotonic_decreasing
    assert chosen[chosen["label"] == 1]["logit"].is_monotonic_increasing


def test_activation_maps_are_those_of_the_mistakes(calibrated_run, cache, tmp_path):
    content = read_checkpoint(calibrated_run / "checkpoints" / "best.ckpt", mapped=False)
    content["cancernet"]["calibration"]["threshold"] = 1e-9  # all are called IDC, so the benign ones are mistakes
    checkpoint = tmp_path / "run" / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir(parents=True)
    replace_checkpoint(checkpoint, content)
    assert main(["test", f"--ckpt_path={checkpoint}", f"--data.cache={cache}", *QUIET]) == 0
    task = ClassificationTask.load_from_checkpoint(checkpoint).eval()
    with np.load(tmp_path / "run" / "pictures.npz") as pictures:
        image = torch.from_numpy(pictures["mistake_image"]).permute(0, 3, 1, 2).float() / 255
        assert len(image) > 1
        expected = class_activation(task.network, image)
        np.testing.assert_allclose(pictures["mistake_map"], expected, atol=1e-5)
