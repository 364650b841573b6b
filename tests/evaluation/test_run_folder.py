import json

import numpy as np
import pandas as pd
import pytest

from cancernet.errors import InputError
from cancernet.evaluation.results import TestMetrics
from cancernet.evaluation.run_folder import read_metrics, read_origin, read_predictions, read_run
from tests.evaluation.run_folders import draw_predictions, draw_run, edit_metrics


@pytest.fixture
def folder(tmp_path):
    return draw_run(tmp_path / "run", cases=4, side=5, draws=20)


def test_a_run_comes_back_as_it_was_written(folder):
    text = (folder / "metrics.json").read_text(encoding="utf-8")
    run = read_run(folder)
    assert json.loads(run.metrics.model_dump_json(exclude_unset=True)) == json.loads(text)
    assert run.metrics.network == "cancernet"
    assert run.pictures is not None
    assert len(run.pictures.thumbnail) == len(run.predictions)
    assert set(run.predictions["part"]) == {"test", "outside"}
    assert set(run.tested["part"]) == {"test"}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_part_of_a_patch_was_called_split(folder, kind):
    expected = read_predictions(folder)
    table = expected.rename(columns={"part": "split"})
    for path in folder.glob("predictions.*"):
        path.unlink()
    if kind == "csv":
        table.to_csv(folder / "predictions.csv", index=False, float_format="%.9g")
    else:
        table.to_parquet(folder / "predictions.parquet", index=False)
    pd.testing.assert_frame_equal(read_predictions(folder)[list(expected.columns[:8])], expected[expected.columns[:8]])


def test_the_csv_is_as_exact_as_the_parquet(folder):
    expected = read_predictions(folder)
    (folder / "predictions.parquet").unlink()
    found = read_predictions(folder)
    for name in ("path", "case", "logit", "probability"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_entries_of_a_later_version_are_ignored(folder):
    expected = read_metrics(folder)
    edit_metrics(folder, invented={"by": "a later version"})
    assert read_metrics(folder) == expected.model_copy(update={"sha256": read_metrics(folder).sha256})


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"auroc": "abc"}, ["auroc", "abc"]),
        ({"auroc": 1.5}, ["auroc", "1.5"]),
        ({"patches": -1}, ["patches", "-1"]),
        ({"intervals": {}}, ["intervals.level", "another version wrote it"]),
        ({"confusion_matrix": [[1, 2]]}, ["confusion_matrix", "another version wrote it"]),
        ({"environment": None}, ["environment", "None"]),
    ],
)
def test_entries_of_another_type_are_named_in_one_line(folder, entries, words):
    edit_metrics(folder, **entries)
    with pytest.raises(InputError) as caught:
        read_metrics(folder)
    message = str(caught.value)
    assert all(word in message for word in [str(folder / "metrics.json"), "cancernet test", *words])
    assert "\n" not in message


def test_what_is_undefined_is_null_in_the_file_and_none_in_memory(folder):
    metrics = read_metrics(folder)
    one_class = next(row for row in metrics.per_case if row.idc == 0)
    assert one_class.auroc is None
    nan = TestMetrics(**dict(metrics) | {"auroc": float("nan"), "loss": float("inf")})
    assert nan.auroc is nan.loss is None
    assert json.loads(nan.model_dump_json())["auroc"] is None


def test_the_origin_is_the_same_from_either_file(folder, tmp_path):
    origin = read_origin(folder)
    changes = {"threshold": origin.threshold, "temperature": origin.temperature}
    predicted = draw_predictions(tmp_path / "predict", {"test": ["a"]}, **changes)
    assert read_origin(predicted) == origin
    assert json.loads((predicted / "predictions.json").read_text(encoding="utf-8"))["split"] == "official"
