# mypy: allow-untyped-defs
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import cancernet
from cancernet.checkpoints import read_checkpoint
from cancernet.cli import main
from cancernet.data.case_lists import OFFICIAL
from cancernet.data.training_record import TrainingRecord
from cancernet.evaluation.records import read_record
from cancernet.pretrained import FOLDER, INCLUDED, locate
from cancernet.slides.command import map_files
from cancernet.slides.summary import MapSummary
from tests.conftest import learnable_files
from tests.data.drawing import write_zip

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


@pytest.fixture(scope="module")
def content():
    return read_checkpoint(INCLUDED)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_file_is_small_and_names_no_place(content):
    assert locate(INCLUDED).stat().st_size < 2_000_000
    arguments = content["IDCDataModule"]["arguments"]
    assert "/" not in arguments["root"]
    assert arguments["cache"] is None
    assert {value.dtype for value in content["state_dict"].values() if value.is_floating_point()} == {torch.float16}


def test_it_knows_what_trained_it(content):
    record = TrainingRecord.from_state(content["IDCDataModule"]["exposure"])
    seen = {case for cases in record.cases.values() for case in cases}
    assert record.known
    assert len(set(OFFICIAL["train"]) & seen) > 60
    assert not set(OFFICIAL["test"]) & seen
    assert not content["IDCDataModule"]["description"]["synthetic"]


def test_it_is_not_tested_on_a_case_that_trained_it(content, here, capsys):
    case = TrainingRecord.from_state(content["IDCDataModule"]["exposure"]).cases["train"][0]
    files = {name.replace("7000", case): data for name, data in learnable_files(cases=3).items()}
    archive = write_zip(here / "some.zip", files)
    parts = pd.DataFrame({"case": [case, "7001", "7002"], "part": ["test", "train", "validation"]})
    parts.to_csv(here / "parts.csv", index=False)
    data = [f"--data.root={archive}", "--data.split=parts.csv", f"--data.cache={here}"]
    assert main(["test", f"--ckpt_path={INCLUDED}", *data, *QUIET]) == 2
    assert f"cases that trained this model are in it ({case})" in capsys.readouterr().err
    assert main(["predict", f"--ckpt_path={INCLUDED}", *data, *QUIET]) == 0
    assert (here / "lightning_logs" / INCLUDED / "predict-some" / "predictions.csv").is_file()


def test_load_without_a_checkpoint_takes_it():
    model = cancernet.load()
    assert model.name == f"{INCLUDED}.ckpt"
    assert model.temperature is not None
    # Pale stroma and crowded dark nuclei, as colours alone: the model has learned that much.
    colours = np.array([[235, 200, 220], [120, 70, 140]])
    random = np.random.default_rng(0)
    patches = np.clip(random.normal(colours[:, None, None], 20, (2, 50, 50, 3)), 0, 255).astype(np.uint8)
    benign, idc = model.predict(patches).probability
    assert benign < idc


def test_map_without_a_checkpoint_takes_it_and_says_so(here):
    pixels = np.random.default_rng(0).integers(90, 200, (120, 150, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(here / "region.png")
    map_files([here / "region.png"], here / "maps", tissue=False)
    summary = read_record(MapSummary, here / "maps" / "region" / "summary.json", "")
    assert summary.checkpoint == f"{INCLUDED}.ckpt"


def test_export_takes_it_by_name_and_writes_here(here):
    assert main(["export", INCLUDED, "--format", "safetensors"]) == 0
    assert (here / f"{INCLUDED}.safetensors").is_file()


def test_calibrate_leaves_it_alone(capsys):
    assert main(["calibrate", INCLUDED]) == 2
    assert "the included model stays as its card describes it" in capsys.readouterr().err


def test_its_card_bears_its_name_and_intervals():
    card = (FOLDER / f"{INCLUDED}.md").read_text(encoding="utf-8")
    assert f"checkpoint {INCLUDED}.ckpt" in card
    assert "Research, not for diagnosis" in card
    assert "bootstrap draws of whole cases" in card
