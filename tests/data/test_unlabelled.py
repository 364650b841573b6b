"""Data without classes or cases: predicted without a split, refused for training with the way out."""

import logging

import numpy as np
import pandas as pd
import pytest

from cancernet.data.audit import audit
from cancernet.data.datamodule import IDCDataModule
from cancernet.data.split_rules import OUTSIDE
from cancernet.data.store.find import find_store
from cancernet.errors import InputError
from cancernet.evaluation.run_folder import predictions_table, read_predictions
from tests.data.drawing import draw_png, write_folder, write_table


def folder_of(tmp_path, *names):
    return write_folder(tmp_path / "data", {name: draw_png(number) for number, name in enumerate(names)})


def module_of(root, tmp_path, **given) -> IDCDataModule:
    return IDCDataModule(str(root), cache=str(tmp_path / "cache"), workers=1, **given)


def test_stains_of_unknown_cases_are_those_of_the_reference(tmp_path):
    data = module_of(folder_of(tmp_path, "a.png", "b.png"), tmp_path, stain_normalization=1.0)
    data.setup("predict")
    batch = next(iter(data.predict_dataloader()))
    before = batch["image"].float() / 255
    with pytest.warns(UserWarning, match="case of 2 patches is not known, so their stains are taken for those"):
        after = data.on_after_batch_transfer(batch, 0)["image"]
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize(
    "names",
    [
        ("one.png",),
        ("p1/a.png", "p2/a.png", "p3/a.png"),
        ("benign/a.png", "malignant/b.png"),
        ("p1/benign/a.png", "p2/malignant/b.png"),
    ],
)
def test_prediction_makes_no_split_where_none_can_be_made(tmp_path, names):
    data = module_of(folder_of(tmp_path, *names), tmp_path)
    data.setup("predict")
    assert set(data.split.part) == {OUTSIDE}
    assert data.description["split"] == "none"
    (batch,) = data.predict_dataloader()
    assert sorted(batch["index"].tolist()) == list(range(len(names)))


def test_training_says_how_to_give_classes_and_cases(tmp_path):
    with pytest.raises(
        InputError, match=r"fit: the class of 2 of 2 patches is not known: put them into folders benign"
    ):
        module_of(folder_of(tmp_path, "a.png", "b.png"), tmp_path).setup("fit")
    root = folder_of(tmp_path / "2", "benign/a.png", "malignant/b.png")
    with pytest.raises(InputError, match=r"test: the case of 2 of 2 patches is not known.*a CSV with the columns path"):
        module_of(root, tmp_path).setup("test")


def test_what_was_understood_is_said(tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)  # Lightning 2.6.0 prints by itself
    module_of(folder_of(tmp_path, "benign/p1/a.png", "malignant/p2/b.png"), tmp_path).setup("predict")
    assert "data: read 2 images: class from folders benign/malignant, case from folders (2, such as p1)" in caplog.text


def test_a_folder_of_cases_and_classes_trains(tmp_path):
    names = [f"{word}/p{case}/{k}.png" for case in range(6) for word in ("benign", "malignant") for k in range(3)]
    data = module_of(folder_of(tmp_path, *names), tmp_path)
    data.setup("fit")
    parts = pd.DataFrame({"case": data.store.index["case"], "part": data.split.part}).drop_duplicates()
    assert len(parts) == 6
    assert data.training_counts == (3 * (parts["part"] == "train").sum(),) * 2


def test_the_audit_counts_what_has_no_class(tmp_path):
    counts = audit(find_store(folder_of(tmp_path, "a.png", "b.png"), tmp_path / "cache", workers=1))
    assert (counts.patches, counts.cases, counts.idc, counts.benign, counts.unlabelled) == (2, 0, 0, 0, 2)
    assert counts.prevalence is None


def test_predictions_of_unlabelled_patches_have_no_label(tmp_path):
    index = pd.DataFrame({"path": ["a", "b"], "case": "", "x": -1, "y": -1, "label": np.array([-1, -1], np.int8)})
    parts = np.full(2, OUTSIDE, dtype=object)
    rows, logit = np.arange(2), np.array([0.5, -1], np.float32)
    assert "label" not in predictions_table(index, parts, rows, logit)
    some = predictions_table(index.assign(label=[-1, 1]), parts, rows, logit)
    assert some["label"].isna().tolist() == [True, False]
    some.to_csv(tmp_path / "predictions.csv", index=False)
    with pytest.raises(InputError, match="the class of its patches is not known"):
        read_predictions(tmp_path)


def test_columns_of_other_names_are_mapped(tmp_path):
    root = folder_of(tmp_path, "a.png", "b.png")
    table = write_table(root / "t.csv", [{"where": "a.png", "truth": "IDC"}, {"where": "b.png", "truth": "benign"}])
    data = module_of(table, tmp_path, columns={"path": "where", "label": "truth"})
    assert data.store.index["label"].tolist() == [1, 0]
    assert data.arguments["columns"] == {"path": "where", "label": "truth"}


@pytest.mark.filterwarnings("ignore:This split is by patch")
def test_a_split_by_patch_needs_no_case(tmp_path):
    names = [f"{word}/{k}.png" for word in ("benign", "malignant") for k in range(20)]
    data = module_of(folder_of(tmp_path, *names), tmp_path, split="patch")
    data.setup("fit")
    assert len(data.training_record.patches["train"]) == len(data.split.rows("train")) == 29


def test_a_prediction_does_without_a_split_that_its_cases_do_not_allow(tmp_path, capsys):
    names = [f"p{case}/{word}/a.png" for case in range(3) for word in ("benign", "malignant")]
    data = module_of(folder_of(tmp_path, *names), tmp_path, folds=5, fold=0)
    data.setup("predict")
    assert set(data.split.part) == {OUTSIDE}
    assert "predicting without a split: data.folds: 5 folds need as many cases" in capsys.readouterr().err
