"""The command line, from one end to the other, on small synthetic data."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cancernet import __version__
from cancernet.cli import main
from cancernet.evaluation.run_folder import read_origin
from tests.data.drawing import draw_png, write_folder, write_zip
from tests.output import only_line
from tests.slides.drawing import draw_tissue

ROOT = Path(__file__).parent.parent
METRICS = "auroc average_precision accuracy balanced_accuracy precision sensitivity specificity npv f1 mcc loss".split()


@pytest.fixture(scope="module")
def fit_arguments(archive, cache) -> list[str]:
    return [
        "--config=configs/demo.yaml",
        f"--data.root={archive}",
        f"--data.cache={cache}",
        "--data.batch_size=32",
        "--trainer.max_epochs=2",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
    ]


@pytest.fixture(scope="module")
def run_folder(fit_arguments, tmp_path_factory) -> Path:
    """A run of two epochs, tested."""
    root = tmp_path_factory.mktemp("runs")
    assert main(["fit", *fit_arguments, f"--trainer.default_root_dir={root}"]) == 0
    folder = root / "lightning_logs" / "version_0"
    assert main(["test", *evaluate(folder)]) == 0
    return folder


def evaluate(folder: Path, checkpoint: str = "best") -> list[str]:
    return [
        f"--ckpt_path={folder}/checkpoints/{checkpoint}.ckpt",
        "--trainer.accelerator=cpu",
        "--trainer.enable_progress_bar=false",
    ]


def test_a_run_leaves_what_readme_says(run_folder):
    files = {str(path.relative_to(run_folder)) for path in run_folder.rglob("*") if path.is_file()}
    expected = "config.yaml split.csv left_out.csv checkpoints/best.ckpt checkpoints/last.ckpt metrics.json "
    expected += "predictions.csv predictions.parquet confusion_matrix.png"
    assert set(expected.split()) <= files
    assert any("tfevents" in name for name in files)
    assert not [name for name in files if "partial" in name]


def test_the_configuration_written_is_what_ran(run_folder, archive):
    config = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert config["data"]["root"] == str(archive)
    assert config["data"]["batch_size"] == 32
    assert config["trainer"]["max_epochs"] == 2
    assert config["model"]["optimizer"]["name"] == "adamw"


def test_tensorboard_shows_metrics_rates_and_pictures(run_folder):
    events = EventAccumulator(str(run_folder))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {f"{stage}/{name}" for stage in ("train", "val") for name in METRICS} <= scalars
    assert any(name.startswith("lr-") for name in scalars)
    assert {"train/augmented_patches", "val/confusion_matrix", "val/roc", "val/precision_recall"} <= set(
        events.Tags()["images"]
    )
    assert [event.step for event in events.Scalars("val/auroc")] == sorted(
        {event.step for event in events.Scalars("val/auroc")}
    )


def test_metrics_are_those_of_the_predictions(run_folder):
    metrics = json.loads((run_folder / "metrics.json").read_text())
    table = pd.read_parquet(run_folder / "predictions.parquet")
    table = table[table["part"] == "test"]
    called = table["probability"] >= 0.5
    label = table["label"] == 1
    tn, fp = int((~called & ~label).sum()), int((called & ~label).sum())
    fn, tp = int((~called & label).sum()), int((called & label).sum())
    assert metrics["confusion_matrix"] == [[tn, fp], [fn, tp]]
    assert metrics["patches"] == len(table) == tn + fp + fn + tp
    assert metrics["cases"] == table["case"].nunique()
    assert metrics["sensitivity"] == pytest.approx(tp / (tp + fn))
    assert metrics["specificity"] == pytest.approx(tn / (tn + fp))
    assert metrics["prevalence"] == pytest.approx(label.mean())
    assert metrics["threshold"] == 0.5
    assert metrics["split"] == "case"
    assert metrics["synthetic"] is False
    assert metrics["version"] == __version__
    np.testing.assert_allclose(table["probability"], 1 / (1 + np.exp(-table["logit"].astype(float))), atol=1e-6)


def test_predictions_are_the_same_as_csv(run_folder):
    parquet = pd.read_parquet(run_folder / "predictions.parquet")
    csv = pd.read_csv(run_folder / "predictions.csv", dtype={"case": str})
    assert list(csv.columns[:8]) == ["path", "case", "x", "y", "part", "label", "logit", "probability"]
    np.testing.assert_array_equal(csv["logit"].astype(np.float32), parquet["logit"])
    assert (csv["case"] == parquet["case"]).all()


def test_the_test_part_of_the_predictions_is_that_of_the_split(run_folder):
    split = pd.read_csv(run_folder / "split.csv", dtype={"case": str})
    predictions = pd.read_parquet(run_folder / "predictions.parquet")
    evaluated = predictions[predictions["part"] == "test"]
    assert set(evaluated["case"]) == set(split[split["part"] == "test"]["case"])


def test_a_checkpoint_is_read_without_pickled_classes(run_folder):
    checkpoint = torch.load(run_folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["cancernet"]["network"] == "cancernet"
    keys = [key for key in checkpoint["state_dict"] if not key.startswith("network.")]
    assert keys == []


def test_other_data_is_evaluated_in_a_folder_of_its_own(run_folder, archive, tmp_path, capsys):
    before = (run_folder / "metrics.json").read_bytes()
    split = pd.read_csv(run_folder / "split.csv", dtype={"case": str})
    parts = tmp_path / "parts.csv"
    split[split["part"] == "test"].to_csv(parts, index=False)
    assert main(["test", *evaluate(run_folder), f"--data.split={parts}"]) == 0
    assert (run_folder / "test-colours" / "metrics.json").is_file()
    assert (run_folder / "metrics.json").read_bytes() == before
    assert capsys.readouterr().out.splitlines()[-1] == str(run_folder / "test-colours")


def test_images_of_any_name_and_layout_are_predicted(run_folder, tmp_path, capsys):
    name = "<b>ä 'quoted' \U0001f52c.png"
    one = write_folder(tmp_path / "tiles", {name: draw_png(1)}) / name
    archive = write_zip(tmp_path / "labelled.zip", {"benign/a.png": draw_png(2), "malignant/b.png": draw_png(3)})
    for root, labels in ((one, None), (one.parent, None), (archive, [0, 1])):
        assert main(["predict", *evaluate(run_folder), f"--data.root={root}", f"--data.cache={tmp_path}/c"]) == 0
        table = pd.read_csv(Path(capsys.readouterr().out.splitlines()[-1]) / "predictions.csv")
        assert table["probability"].between(0, 1).all()
        assert (list(table["label"]) if "label" in table else None) == labels


def test_what_holds_no_image_is_refused_in_one_line(run_folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    text = write_folder(tmp_path / "broken", {"text.png": b"no image"}) / "text.png"
    for root, words in ((tmp_path / "empty", "it is empty"), (text, "text.png holds no readable patch (1 no readable")):
        assert main(["predict", *evaluate(run_folder), f"--data.root={root}", f"--data.cache={tmp_path}/c"]) == 2
        assert words in only_line(capsys)


def test_validate_and_predict(run_folder, store, capsys):
    assert main(["validate", *evaluate(run_folder)]) == 0
    assert "val/auroc" in capsys.readouterr().out
    assert main(["predict", *evaluate(run_folder)]) == 0
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert len(pd.read_csv(folder / "predictions.csv")) == len(store)
    assert read_origin(folder) == read_origin(run_folder)  # one from predictions.json, one from metrics.json


def test_a_run_goes_on_where_it_stopped(run_folder, fit_arguments, tmp_path):
    arguments = [*fit_arguments, "--trainer.max_epochs=3", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", *arguments, f"--ckpt_path={run_folder}/checkpoints/last.ckpt"]) == 0
    last = torch.load(tmp_path / "lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)
    assert last["epoch"] == 2


@pytest.mark.parametrize(
    "configs",
    [
        ["original"],
        ["cancernet"],
        ["cancernet", "compact"],
        ["cancernet", "residual"],
        ["cancernet", "mobilenet"],
        ["demo"],
    ],
)
def test_each_configuration_fits_tests_and_predicts(configs, archive, cache, tmp_path):
    arguments = [f"--config=configs/{config}.yaml" for config in configs]
    arguments += [f"--data.root={archive}", f"--data.cache={cache}"]
    quick = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.accelerator=cpu"]
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    assert main(["fit", *arguments, *quick, *quiet, f"--trainer.default_root_dir={tmp_path}"]) == 0
    assert main(["test", *evaluate(tmp_path / "lightning_logs" / "version_0", "last")]) == 0
    assert main(["predict", *evaluate(tmp_path / "lightning_logs" / "version_0", "last")]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data.root=/nosuch/archive"], "/nosuch/archive"),
        (["--data.split=nosuch"], "unknown split 'nosuch'"),
        (["--model.image_size=4"], "4"),
        (["--model.nosuch=1"], "nosuch"),
        (["--data.batch_size=many"], "many"),
        (["--config=nosuch.yaml"], "nosuch.yaml"),
        (["--ckpt_path=nosuch.ckpt"], "nosuch.ckpt"),
        (["--model.optimizer.lr=-1"], "model.optimizer.lr"),
        (["--model.learning_rate=1"], "model.learning_rate is now model.optimizer.lr"),
        (["--trainer.fast_dev_run=-3"], "-3"),
    ],
)
def test_bad_options_get_one_clear_line(arguments, words, fit_arguments, tmp_path, capsys):
    assert main(["fit", *fit_arguments, f"--trainer.default_root_dir={tmp_path}", *arguments]) == 2
    assert words in only_line(capsys)


def test_synchronised_batch_norm_is_refused_on_the_cpu(fit_arguments, tmp_path, capsys, monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "NODE_RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")  # so that what Lightning sets is taken back
        monkeypatch.delenv(name)
    options = ["--trainer.sync_batchnorm=true", "--trainer.strategy=ddp", "--trainer.devices=1"]
    assert main(["fit", *fit_arguments, f"--trainer.default_root_dir={tmp_path}", *options]) == 2
    assert "on GPUs only" in only_line(capsys)


def test_a_truncated_zip_is_named(archive, tmp_path, capsys):
    (tmp_path / "cut.zip").write_bytes(archive.read_bytes()[:-3000])
    assert main(["fit", f"--data.root={tmp_path / 'cut.zip'}", f"--trainer.default_root_dir={tmp_path}"]) == 2
    assert "cut.zip" in only_line(capsys)


def test_evaluating_needs_a_checkpoint(capsys):
    assert main(["test"]) == 2
    assert "--ckpt_path is needed" in only_line(capsys)


def test_files_that_are_no_checkpoint_are_named(tmp_path, capsys):
    for name, content in {"text.ckpt": b"no checkpoint", "empty.ckpt": b""}.items():
        (tmp_path / name).write_bytes(content)
        assert main(["test", f"--ckpt_path={tmp_path / name}"]) == 2
        assert name in only_line(capsys)
    torch.save({"state_dict": {}}, tmp_path / "foreign.ckpt")
    assert main(["test", f"--ckpt_path={tmp_path / 'foreign.ckpt'}"]) == 2
    assert "not a checkpoint of a CancerNet task" in only_line(capsys)


def test_a_checkpoint_with_code_in_it_is_refused_and_not_run(tmp_path, capsys):
    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"cancernet": Hostile(), "state_dict": {}}, tmp_path / "hostile.ckpt")
    assert main(["test", f"--ckpt_path={tmp_path / 'hostile.ckpt'}"]) == 2
    assert "not a checkpoint that can be read safely" in only_line(capsys)
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_another_network_is_refused(run_folder, capsys):
    assert main(["test", *evaluate(run_folder), "--model.classes=1"]) == 2
    assert "the checkpoint's network has classes 2, this one 1" in only_line(capsys)


@pytest.mark.filterwarnings("ignore:This split is by patch")
@pytest.mark.parametrize("options", [["--data.seed=1"], ["--data.split=patch"]])
def test_a_model_is_not_evaluated_on_what_it_has_seen(run_folder, options, capsys):
    before = (run_folder / "metrics.json").read_bytes()
    assert main(["test", *evaluate(run_folder), *options]) == 2
    assert "this model" in only_line(capsys)
    assert (run_folder / "metrics.json").read_bytes() == before


def test_two_processes_train_to_the_end_and_evaluate_as_one_does(run_folder, fit_arguments, tmp_path):
    def run(*arguments: str) -> None:
        command = [sys.executable, "-m", "cancernet", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
        assert done.returncode == 0, done.stderr[-2000:]

    two = ["--trainer.strategy=ddp", "--trainer.devices=2"]
    run("fit", *fit_arguments, *two, f"--trainer.default_root_dir={tmp_path}")
    folder = tmp_path / "lightning_logs" / "version_0"
    run("test", *evaluate(folder), *two)
    both = json.loads((folder / "metrics.json").read_text())
    predictions = [pd.read_parquet(folder / "predictions.parquet")]
    assert main(["test", *evaluate(folder)]) == 0
    one = json.loads((folder / "metrics.json").read_text())
    assert {name: one[name] for name in METRICS} == pytest.approx({name: both[name] for name in METRICS}, abs=1e-6)
    assert one["confusion_matrix"] == both["confusion_matrix"]
    predictions.append(pd.read_parquet(folder / "predictions.parquet"))
    Image.fromarray(draw_tissue(300, 1100)).save(tmp_path / "region.png")
    region = ["predict", *evaluate(folder), f"--data.root={tmp_path / 'region.png'}", f"--data.cache={tmp_path}"]
    for predict in (lambda: run(*region, *two), lambda: main(region)):
        predict()
        predictions.append(pd.read_parquet(folder / "predict-region" / "predictions.parquet"))
    for one, both in (predictions[:2], predictions[2:]):
        assert one["path"].is_unique
        pd.testing.assert_frame_equal(one[["path", "logit"]], both[["path", "logit"]], atol=1e-5)
