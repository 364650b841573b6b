"""Results of a part of the patches never replace those of all, and say what they are."""

import json
import shutil
from pathlib import Path

import jsonschema
import pandas as pd
import pytest

from cancernet.cli import main
from cancernet.evaluation.results import PredictionsOrigin, TestMetrics
from tests.output import only_line
from tests.training.calibrated import QUIET


@pytest.fixture
def run(calibrated_run, tmp_path) -> Path:
    return shutil.copytree(calibrated_run, tmp_path / "run")


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def call(command: str, run: Path, cache: Path, *options: str) -> int:
    return main([command, f"--ckpt_path={run}/checkpoints/best.ckpt", f"--data.cache={cache}", *QUIET, *options])


@pytest.mark.parametrize("limit", ["1", "0.5"])
def test_a_part_of_a_test_lies_in_a_folder_of_its_own_and_says_so(limit, run, cache, capsys):
    before = files_of(run)
    assert call("test", run, cache, f"--trainer.limit_test_batches={limit}") == 0
    printed = capsys.readouterr().out
    part = run / "part-of-test"
    assert printed.splitlines()[-1] == str(part)
    after = files_of(run)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith("part-of-test/") for name in after.keys() - before.keys())
    metrics = json.loads((part / "metrics.json").read_text())
    jsonschema.Draft202012Validator(TestMetrics.model_json_schema()).validate(metrics)
    evaluated = {"1": 32, "0.5": 48}[limit]  # of 60 patches in the test part, 40 outside the split, by 16
    assert metrics["whole"] is False
    assert metrics["extent"] == {"evaluated": evaluated, "patches": 100}
    assert len(pd.read_parquet(part / "predictions.parquet")) == evaluated
    for text in (printed, (part / "report.html").read_text(), (part / "model_card.md").read_text()):
        assert f"Part of the test: {evaluated} of 100 patches." in text
    assert main(["compare", str(run), str(part)]) == 2
    assert f"its results are of {evaluated} of 100 patches only" in only_line(capsys)


def test_a_part_of_a_prediction_lies_in_a_folder_of_its_own_and_says_so(run, cache, capsys):
    before = files_of(run)
    assert call("predict", run, cache, "--trainer.limit_predict_batches=2") == 0
    said, folder = capsys.readouterr().out.splitlines()[-2:]
    assert said == "Part of the predictions: 32 of 240 patches"
    assert folder == str(run / "part-of-predict-colours")
    assert {name: content for name, content in files_of(run).items() if not name.startswith("part-of-")} == before
    origin = json.loads((run / "part-of-predict-colours" / "predictions.json").read_text())
    jsonschema.Draft202012Validator(PredictionsOrigin.model_json_schema()).validate(origin)
    assert (origin["whole"], origin["extent"]) == (False, {"evaluated": 32, "patches": 240})
    assert main(["context", folder]) == 2
    assert "its results are of 32 of 240 patches only" in only_line(capsys)


def test_the_whole_says_so_too(run):
    for name, patches in (("metrics.json", 100), ("predict-colours/predictions.json", 240)):
        content = json.loads((run / name).read_text())
        assert (content["whole"], content["extent"]) == (True, {"evaluated": patches, "patches": patches})


@pytest.mark.parametrize("command", ["test", "predict", "validate"])
def test_a_dry_run_leaves_nothing(command, run, cache):
    before = files_of(run)
    assert call(command, run, cache, "--trainer.fast_dev_run=2") == 0
    assert files_of(run) == before


def test_a_dry_fit_leaves_nothing(cache, store, tmp_path):
    options = [f"--data.root={store.path}", f"--data.cache={cache}", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", *options, *QUIET, "--data.batch_size=32", "--trainer.fast_dev_run=true"]) == 0
    assert list(tmp_path.iterdir()) == []
