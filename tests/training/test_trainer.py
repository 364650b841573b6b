"""A Trainer in Python and the command line leave the same run; resuming keeps to its own folder and to what it says."""

import inspect
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch import Trainer, seed_everything

from cancernet.checkpoints import read_checkpoint
from cancernet.cli import main
from cancernet.data.datamodule import IDCDataModule
from cancernet.errors import InputError
from cancernet.training.averaging import ExponentialAveraging
from cancernet.training.checkpoints import recorded_calibration
from cancernet.training.optimization import OptimizerSettings, ScheduleSettings
from cancernet.training.task import ClassificationTask
from tests.output import only_line

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


def python_trainer(root: Path, **options) -> Trainer:
    return Trainer(
        accelerator="cpu",
        default_root_dir=root,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        **options,
    )


@pytest.fixture(scope="module")
def fit_arguments(archive, cache) -> list[str]:
    data = [f"--data.root={archive}", f"--data.cache={cache}", "--data.batch_size=32"]
    data += ["--data.stain_normalization=0.5"]
    return ["--config=configs/cancernet.yaml", *data, "--trainer.max_epochs=2", *QUIET]


@pytest.fixture(scope="module")
def run_folder(fit_arguments, tmp_path_factory) -> Path:
    """A run of two epochs by the command line, with averaged weights and recalibrated batch norm."""
    root = tmp_path_factory.mktemp("by_command_line")
    assert main(["fit", *fit_arguments, f"--trainer.default_root_dir={root}"]) == 0
    return root / "lightning_logs" / "version_0"


@pytest.fixture(scope="module")
def python_run(archive, cache, tmp_path_factory) -> tuple[Path, Trainer, IDCDataModule]:
    """The same run from Python."""
    root = tmp_path_factory.mktemp("by_python")
    seed_everything(0)
    task = ClassificationTask(
        batch_norm_momentum=0.9,
        measure_batch_norm=True,
        optimizer=OptimizerSettings(lr=0.002, weight_decay=0.05),
        schedule=ScheduleSettings("cosine", warmup=0.25),
        label_smoothing=0.1,
        dropout=0.5,
    )
    data = IDCDataModule(
        str(archive),
        cache=str(cache),
        batch_size=32,
        augmentation=["symmetries", "rotation", "stain_jitter"],
        stain_normalization=0.5,
    )
    trainer = python_trainer(root, max_epochs=2, callbacks=[ExponentialAveraging(0.99)])
    trainer.fit(task, datamodule=data)
    return Path(str(trainer.log_dir)), trainer, data


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_python_leaves_the_same_files_and_the_same_weights(run_folder, python_run):
    folder = python_run[0]
    names = [sorted(name for name in files_of(place) if "tfevents" not in name) for place in (run_folder, folder)]
    assert names[0] == names[1]
    assert {"config.yaml", "split.csv", "left_out.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= set(
        names[1]
    )
    assert (run_folder / "split.csv").read_bytes() == (folder / "split.csv").read_bytes()
    for name in ("best.ckpt", "last.ckpt"):
        one, other = (read_checkpoint(place / "checkpoints" / name) for place in (run_folder, folder))
        assert one["state_dict"].keys() == other["state_dict"].keys()
        for key, value in one["state_dict"].items():
            assert torch.equal(value, other["state_dict"][key]), key
        assert recorded_calibration(one) == recorded_calibration(other)
        assert recorded_calibration(one) is not None


def test_the_configuration_from_python_fits_the_same_again(python_run, run_folder, cache, tmp_path):
    config = yaml.safe_load((python_run[0] / "config.yaml").read_text())
    assert config["model"]["optimizer"]["lr"] == 0.002
    assert config["data"]["stain_normalization"] == 0.5
    given = [f"--config={python_run[0] / 'config.yaml'}", f"--trainer.default_root_dir={tmp_path}", *QUIET]
    assert main(["fit", *given, "--trainer.max_steps=1"]) == 0


def test_python_tests_its_run_as_the_command_line_does(run_folder, python_run, cache):
    folder = python_run[0]
    checkpoint = folder / "checkpoints" / "last.ckpt"
    task = ClassificationTask.load_from_checkpoint(checkpoint)
    data = IDCDataModule.load_from_checkpoint(checkpoint)
    python_trainer(folder.parents[1], logger=False).test(task, datamodule=data, ckpt_path=checkpoint, verbose=False)
    assert main(["test", f"--ckpt_path={run_folder}/checkpoints/last.ckpt", *QUIET]) == 0
    by_python, by_command = (json.loads((place / "metrics.json").read_text()) for place in (folder, run_folder))
    for metrics in (by_python, by_command):
        del metrics["environment"], metrics["sha256"]["metrics.json"]  # these tell the time of the test
    assert by_python == by_command
    assert {"report.html", "model_card.md", "predictions.csv"} <= set(files_of(folder))


@pytest.mark.parametrize("stage", ["test", "validate"])
def test_the_trainer_that_trained_evaluates_the_averaged_weights(python_run, stage):
    folder, trainer, data = python_run
    checkpoint = folder / "checkpoints" / "last.ckpt"
    given = {"datamodule": data, "ckpt_path": checkpoint, "verbose": False}
    metrics = getattr(trainer, stage)(trainer.lightning_module, **given)
    averaged, loaded = read_checkpoint(checkpoint)["state_dict"], trainer.lightning_module.state_dict()
    assert [name for name, value in averaged.items() if not torch.equal(value, loaded[name])] == []
    other = python_trainer(folder.parents[1], logger=False)
    assert getattr(other, stage)(ClassificationTask.load_from_checkpoint(checkpoint), **given) == metrics


def test_weights_in_memory_are_evaluated_without_files(python_run, archive, cache, tmp_path):
    task, data = ClassificationTask(), IDCDataModule(str(archive), cache=str(cache))
    trainer = python_trainer(tmp_path, logger=False)
    with pytest.warns(UserWarning, match="ckpt_path"):
        trainer.test(task, datamodule=data, verbose=False)
    assert list(tmp_path.iterdir()) == []


def test_a_loaded_task_is_the_one_that_was_trained(python_run):
    checkpoint = python_run[0] / "checkpoints" / "best.ckpt"
    task = ClassificationTask.load_from_checkpoint(checkpoint, dropout=0.25)
    assert (task.optimizer.lr, task.schedule.name) == (0.002, "cosine")
    assert (task.hparams["dropout"], task.hparams["label_smoothing"]) == (0.25, 0.1)
    content = read_checkpoint(checkpoint)
    for name, value in task.state_dict().items():
        assert torch.equal(value, content["state_dict"][name]), name


def test_a_checkpoint_named_in_a_file_fills_in_what_it_records(run_folder, tmp_path):
    """As with --ckpt_path: the recorded data, network and stain normalisation hold."""
    config = tmp_path / "predict.yaml"
    config.write_text(yaml.safe_dump({"ckpt_path": str(run_folder / "checkpoints" / "last.ckpt")}))
    assert main(["predict", f"--config={config}", *QUIET]) == 0
    named = pd.read_parquet(run_folder / "predict-colours" / "predictions.parquet")
    assert main(["predict", f"--ckpt_path={run_folder}/checkpoints/last.ckpt", *QUIET]) == 0
    pd.testing.assert_frame_equal(named, pd.read_parquet(run_folder / "predict-colours" / "predictions.parquet"))


def test_what_differs_from_the_record_is_said(run_folder, capsys):
    arguments = [f"--ckpt_path={run_folder}/checkpoints/last.ckpt", "--data.batch_size=16", *QUIET]
    assert main(["validate", *arguments]) == 0
    assert "data.batch_size is 16 as given; the checkpoint was trained with 32" in capsys.readouterr().err


def test_resuming_a_finished_run_says_that_nothing_is_left(run_folder, fit_arguments, tmp_path, capsys):
    old = shutil.copytree(run_folder, tmp_path / "old" / "lightning_logs" / "version_0")
    before = files_of(old)
    resume = [f"--ckpt_path={old}/checkpoints/last.ckpt", f"--trainer.default_root_dir={tmp_path / 'new'}"]
    assert main(["fit", *fit_arguments, *resume]) == 2
    assert "nothing left to train" in only_line(capsys)
    assert files_of(old) == before
    assert not (tmp_path / "new").exists()


def test_the_best_of_a_resumed_run_is_the_best_of_the_whole_run(run_folder, fit_arguments, tmp_path):
    content = read_checkpoint(run_folder / "checkpoints" / "last.ckpt", mapped=False)
    (key,) = (key for key in content["callbacks"] if "val/auroc" in key)
    state = content["callbacks"][key]
    unbeatable = torch.tensor(1.5)
    state["best_k_models"] = dict.fromkeys(state["best_k_models"], unbeatable)
    copy = tmp_path / "last.ckpt"
    torch.save(content, copy)
    resume = [f"--ckpt_path={copy}", "--trainer.max_epochs=3", f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", *fit_arguments, *resume]) == 0
    best = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "best.ckpt"
    assert read_checkpoint(best)["epoch"] == read_checkpoint(run_folder / "checkpoints" / "best.ckpt")["epoch"]
    assert read_checkpoint(best.with_name("last.ckpt"))["epoch"] == 2


def test_training_goes_on_with_the_statistics_that_it_left(run_folder):
    content = read_checkpoint(run_folder / "checkpoints" / "last.ckpt")
    trained = content["cancernet"]["trained_statistics"]
    assert any(name.endswith("running_var") for name in trained)
    assert not any(torch.equal(value, content["state_dict"][name]) for name, value in trained.items())


@pytest.mark.parametrize(("option", "recorded"), [("lr", 0.002), ("weight_decay", 0.05)])
def test_a_resume_under_another_optimiser_setting_is_refused(
    option, recorded, run_folder, fit_arguments, tmp_path, capsys
):
    resume = [f"--ckpt_path={run_folder}/checkpoints/last.ckpt", f"--trainer.default_root_dir={tmp_path}"]
    changed = ["--trainer.max_epochs=3", f"--model.optimizer.{option}=0.5"]
    assert main(["fit", *fit_arguments, *resume, *changed]) == 2
    assert f"model.optimizer.{option} is 0.5 here and {recorded} in the checkpoint" in capsys.readouterr().err


def test_one_test_reads_the_checkpoint_once(run_folder, monkeypatch):
    read, load = [], torch.load

    def counted(file, *args, **kwargs):
        read.append(str(file))
        return load(file, *args, **kwargs)

    copy = Path(shutil.copytree(run_folder, run_folder.parent / "copy")) / "checkpoints" / "last.ckpt"
    monkeypatch.setattr(torch, "load", counted)
    assert main(["test", f"--ckpt_path={copy}", *QUIET]) == 0
    assert read == [str(copy)]


def test_a_dry_run_writes_nothing(run_folder, tmp_path):
    before = files_of(run_folder)
    assert main(["test", f"--ckpt_path={run_folder}/checkpoints/last.ckpt", *QUIET, "--trainer.fast_dev_run=true"]) == 0
    assert files_of(run_folder) == before


def test_the_task_groups_its_options():
    assert len(inspect.signature(ClassificationTask.__init__).parameters) - 1 <= 15


def test_a_network_that_only_the_user_may_name_is_not_built(python_run, tmp_path):
    content = read_checkpoint(python_run[0] / "checkpoints" / "best.ckpt", mapped=False)
    content["cancernet"] |= {"network": "os.mkdir", "network_arguments": {"path": str(tmp_path / "made")}}
    torch.save(content, tmp_path / "hostile.ckpt")
    with pytest.raises(InputError, match="nothing that a file names is run"):
        ClassificationTask.load_from_checkpoint(tmp_path / "hostile.ckpt")
    assert not (tmp_path / "made").exists()
