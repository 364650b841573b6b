"""A run of two epochs with averaged weights, calibrated at its end and tested: what it stores and writes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from cancernet.checkpoints import read_checkpoint
from cancernet.cli import main
from cancernet.data.augment import symmetries
from cancernet.data.datamodule import IDCDataModule
from cancernet.data.store.find import find_store
from cancernet.evaluation.analysis import Scores, fit_calibration
from cancernet.training.calibration import calibrate_checkpoint
from cancernet.training.checkpoints import recorded_calibration
from cancernet.training.task import ClassificationTask
from tests.conftest import learnable_files
from tests.data.drawing import write_zip
from tests.training.calibrated import CASES, PARTS, QUIET, write_parts


@pytest.fixture
def checkpoint(calibrated_run, tmp_path) -> Path:
    """A copy of the best checkpoint, to be changed."""
    return Path(shutil.copy(calibrated_run / "checkpoints" / "best.ckpt", tmp_path / "copy.ckpt"))


def read_metrics(calibrated_run: Path) -> dict:
    return json.loads((calibrated_run / "metrics.json").read_text())


def error_line(capsys) -> str:
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    lines = [line for line in captured.err.splitlines() if line.startswith("cancernet: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize("name", ["best", "last"])
def test_fit_calibrates_both_checkpoints(calibrated_run, name):
    found = recorded_calibration(read_checkpoint(calibrated_run / "checkpoints" / f"{name}.ckpt"))
    assert found is not None
    assert (found["patches"], found["cases"]) == (40, 2)
    assert found["data"]["name"] == "colours"
    assert not list(calibrated_run.rglob("*.partial"))


def test_a_part_of_the_validation_may_be_enough(checkpoint, cache):
    data = IDCDataModule.load_from_checkpoint(checkpoint, cache=str(cache))
    data.setup("validate")
    said = calibrate_checkpoint(checkpoint, data, torch.device("cpu"), ClassificationTask, patches=12)
    assert said.endswith("from 12 of 40 validation patches of 2 cases")


def test_the_figures_of_the_validation_part_are_kept_with_the_threshold(calibrated_run):
    (table,) = (pd.read_parquet(path) for path in calibrated_run.glob("predict-*/predictions.parquet"))
    part = table[table["part"] == "validation"]
    found = recorded_calibration(read_checkpoint(calibrated_run / "checkpoints" / "best.ckpt"))
    assert found is not None
    assert found["auroc"] == pytest.approx(roc_auc_score(part["label"], part["probability"]), abs=0.01)
    called = part["probability"] >= found["threshold"]
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(part["label"], called), abs=0.03)


def test_statistics_of_batch_norm_are_measured_on_the_training_part(calibrated_run, archive, cache):
    """The configuration asks for it; here it is done again, from the averaged weights and by another way."""
    content = read_checkpoint(calibrated_run / "checkpoints" / "last.ckpt")
    task = ClassificationTask()
    task.load_state_dict(content["state_dict"])
    store = find_store(archive, cache, workers=1)
    rows = np.flatnonzero([PARTS[case] == "train" for case in store.index["case"]])
    norm = next(layer for layer in task.network.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm))
    given: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda layer, inputs: given.append(inputs[0]))
    with torch.inference_mode():
        task.eval()(torch.from_numpy(np.array(store.images[rows])).permute(0, 3, 1, 2).float() / 255)
    torch.testing.assert_close(norm.running_mean, given[0].mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(norm.running_var, given[0].var((0, 2, 3), correction=0), atol=1e-5, rtol=1e-3)


def test_statistics_can_be_measured_later_but_on_the_run_s_own_data_only(checkpoint, cache, tmp_path, capsys):
    before = read_checkpoint(checkpoint, mapped=False)["state_dict"]
    content = read_checkpoint(checkpoint, mapped=False)
    for name in content["state_dict"]:
        if name.endswith("moving_variance"):
            content["state_dict"][name].fill_(5.0)
    torch.save(content, checkpoint)
    assert main(["calibrate", str(checkpoint), "--measure_batch_norm", f"--cache={cache}"]) == 0
    after = read_checkpoint(checkpoint)["state_dict"]
    assert after.keys() == before.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-5, rtol=1e-4)
    other = write_parts(tmp_path / "other.csv", dict.fromkeys(CASES[5:7], "validation") | {CASES[10]: "train"})
    arguments = ["calibrate", str(checkpoint), "--measure_batch_norm", f"--split={other}", f"--cache={cache}"]
    assert main(arguments) == 2
    assert "measure_batch_norm" in error_line(capsys)


def test_symmetries_are_averaged_from_the_next_calibration(
    checkpoint, calibrated_run, archive, cache, tmp_path, capsys
):
    own = [f"--data.root={archive}", f"--data.cache={cache}"]
    assert main(["test", f"--ckpt_path={checkpoint}", "--model.tta=true", *own, *QUIET]) == 2
    assert "calibrate the checkpoint" in error_line(capsys)
    before = recorded_calibration(read_checkpoint(checkpoint))
    assert main(["calibrate", str(checkpoint), "--tta=true", f"--cache={cache}"]) == 0
    assert recorded_calibration(read_checkpoint(checkpoint)) != before
    assert main(["predict", f"--ckpt_path={checkpoint}", *own, *QUIET]) == 0
    (averaged,) = (pd.read_parquet(path) for path in tmp_path.glob("predict-*/predictions.parquet"))
    (plain,) = (pd.read_parquet(path) for path in calibrated_run.glob("predict-*/predictions.parquet"))
    task = ClassificationTask()
    task.load_state_dict(read_checkpoint(checkpoint)["state_dict"])
    images = find_store(archive, cache, workers=1).images[:8]
    with torch.inference_mode():
        image = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255
        logits = [task.eval()(turned) for turned in symmetries(image)]
    np.testing.assert_allclose(plain["logit"][:8], logits[0], atol=1e-4)
    np.testing.assert_allclose(averaged["logit"][:8], torch.stack(logits).mean(dim=0), atol=1e-4)
    # The export's network runs once: it is not what was calibrated.
    assert main(["export", str(checkpoint), "--format=torch", f"--output={tmp_path / 'model.pt2'}"]) == 2
    assert "--tta false" in error_line(capsys)


def test_the_pass_goes_through_the_averaged_weights_of_the_checkpoint(calibrated_run):
    """`predict` reads the checkpoint by another way, through Lightning."""
    (table,) = (pd.read_parquet(path) for path in calibrated_run.glob("predict-*/predictions.parquet"))
    part = table[table["part"] == "validation"]
    expected = fit_calibration(Scores(part["label"].to_numpy(), part["logit"].to_numpy(), part["case"].to_numpy()))
    found = recorded_calibration(read_checkpoint(calibrated_run / "checkpoints" / "best.ckpt"))
    assert found is not None
    assert found["threshold"] == pytest.approx(expected.threshold, abs=1e-5)
    assert found["temperature"] == pytest.approx(expected.temperature, rel=1e-3)
    assert "current_model_state" in read_checkpoint(calibrated_run / "checkpoints" / "best.ckpt")


def test_calibrating_again_finds_the_same_and_says_so_in_a_line(checkpoint, cache, capsys):
    before = recorded_calibration(read_checkpoint(checkpoint))
    assert before is not None
    assert main(["calibrate", str(checkpoint), f"--cache={cache}"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("copy.ckpt")]
    assert f"threshold {before['threshold']:.4f}" in line
    assert f"temperature {before['temperature']:.4f}" in line
    assert recorded_calibration(read_checkpoint(checkpoint)) == before


def test_an_interruption_leaves_the_old_file(checkpoint, cache, monkeypatch):
    before = checkpoint.read_bytes()

    def interrupted(file, content):
        file.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    assert main(["calibrate", str(checkpoint), f"--cache={cache}"]) == 130
    assert checkpoint.read_bytes() == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_cases_that_trained_the_model_are_refused(checkpoint, cache, tmp_path, capsys):
    before = checkpoint.read_bytes()
    parts = write_parts(tmp_path / "other.csv", {**PARTS, CASES[0]: "validation", CASES[5]: "train"})
    assert main(["calibrate", str(checkpoint), f"--cache={cache}", f"--split={parts}"]) == 2
    assert f"cases that trained this model are in it ({CASES[0]})" in error_line(capsys)
    assert checkpoint.read_bytes() == before


def test_cases_of_other_data_that_chose_the_threshold_cannot_evaluate(checkpoint, cache, tmp_path, capsys):
    other = {path.replace("70", "80"): image for path, image in learnable_files(cases=3, seed=5).items()}
    root = write_zip(tmp_path / "other.zip", other)
    parts = write_parts(tmp_path / "parts.csv", {"8000": "validation", "8001": "test"})
    assert main(["calibrate", str(checkpoint), f"--root={root}", f"--split={parts}", f"--cache={cache}"]) == 0
    found = recorded_calibration(read_checkpoint(checkpoint))
    assert found is not None
    assert found["data"]["name"] == "other"
    evaluate = ["test", f"--ckpt_path={checkpoint}", f"--data.root={root}", f"--data.cache={cache}", *QUIET]
    swapped = write_parts(tmp_path / "swapped.csv", {"8000": "test", "8001": "validation"})
    assert main([*evaluate, f"--data.split={swapped}"]) == 2
    assert "8000" in error_line(capsys)
    assert main([*evaluate, f"--data.split={parts}"]) == 0
    (folder,) = tmp_path.glob("test-other")
    metrics = read_metrics(folder)
    assert metrics["baselines"] is None
    assert metrics["leak_proof"]["cases_in_two_parts"] == 0


def test_a_checkpoint_without_its_data_is_refused(checkpoint, capsys):
    content = read_checkpoint(checkpoint, mapped=False)
    del content["IDCDataModule"]
    torch.save(content, checkpoint)
    assert main(["calibrate", str(checkpoint)]) == 2
    assert "no record of its data" in error_line(capsys)


def test_an_uncalibrated_checkpoint_is_evaluated_at_one_half(checkpoint, cache, tmp_path):
    content = read_checkpoint(checkpoint, mapped=False)
    content["cancernet"]["calibration"] = None
    torch.save(content, checkpoint)
    assert main(["test", f"--ckpt_path={checkpoint}", f"--data.cache={cache}", *QUIET]) == 0
    assert read_metrics(tmp_path)["at_validation_threshold"] is None
    table = pd.read_parquet(tmp_path / "predictions.parquet")
    assert table["probability_calibrated"].isna().all()
