# mypy: allow-untyped-defs
import shutil

import numpy as np
import torch

import cancernet
from cancernet.checkpoints import read_checkpoint
from cancernet.cli import main
from cancernet.evaluation.calibration import sigmoid
from cancernet.pretrained import INCLUDED
from scripts.studies.include import check, make, reduce
from tests.training.calibrated import CASES


def test_a_model_is_reduced_to_half_precision_and_tested_as_such(
    calibrated_run, archive, cache, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    checkpoint = calibrated_run / "checkpoints" / "last.ckpt"
    reduced = reduce(read_checkpoint(checkpoint))
    for name, value in read_checkpoint(checkpoint)["state_dict"].items():
        torch.testing.assert_close(reduced["state_dict"][name].to(value.dtype), value, rtol=1e-3, atol=1e-7)
    make(checkpoint, str(archive), tmp_path / "made", str(cache))
    monkeypatch.setattr("cancernet.pretrained.FOLDER", tmp_path / "made")
    monkeypatch.setattr("scripts.studies.include.FOLDER", tmp_path / "made")
    whole, half = cancernet.load(checkpoint), cancernet.load()
    patches = np.random.default_rng(0).integers(0, 256, (20, 50, 50, 3), dtype=np.uint8)
    np.testing.assert_allclose(sigmoid(half.logits(patches)), sigmoid(whole.logits(patches)), atol=2e-2)
    check(str(archive), str(cache))
    assert "every figure of its card" in capsys.readouterr().out


def test_context_takes_its_name_for_what_it_predicted(calibrated_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["context", INCLUDED]) == 2
    assert "predicted nothing here" in capsys.readouterr().err
    predicted = next(calibrated_run.glob("predict-*"))
    there = shutil.copytree(predicted, tmp_path / "lightning_logs" / INCLUDED / predicted.name)
    outside = ["--fit_on", ",".join([*CASES[5:7], *CASES[10:]]), "--score", ",".join(CASES[7:10])]
    assert main(["context", INCLUDED, *outside]) == 0
    assert list(there.glob("context*.csv"))
