"""Features of Lightning work, or are refused in one line ahead of training."""

import signal
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cancernet.checkpoints import read_checkpoint
from cancernet.cli import main
from cancernet.training.checkpoints import recorded_calibration
from tests.output import only_line
from tests.training.interrupted import QUIET, SMALL, signal_itself

LIGHTNING = "lightning.pytorch.callbacks"


@pytest.fixture
def fit(archive, cache, tmp_path):
    def run(*options: str) -> int:
        data = [f"--data.root={archive}", f"--data.cache={cache}", "--trainer.max_epochs=1"]
        return main(["fit", *SMALL, *data, *QUIET, f"--trainer.default_root_dir={tmp_path}", *options])

    return run


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (
            f"--trainer.callbacks+={{class_path: {LIGHTNING}.StochasticWeightAveraging, init_args: {{swa_lrs: 0.1}}}}",
            "cancernet.training.averaging.ExponentialAveraging",
        ),
        (f"--trainer.callbacks+={LIGHTNING}.LearningRateFinder", "give --model.optimizer.lr"),
        (
            f"--trainer.callbacks+={{class_path: {LIGHTNING}.EarlyStopping, init_args: {{monitor: val_loss}}}}",
            "no metric is named 'val_loss'; monitor one of val/accuracy, val/auroc",
        ),
        ("--checkpoint.monitor=auc", "no metric is named 'auc'"),
        ("--trainer.strategy=ddp_spawn", "give ddp"),
        ("--trainer.strategy=ddp_notebook", "give ddp"),
        ("--model.schedule={name: cosine, warmup: 0.1} --trainer.max_epochs=-1", "this run has no end"),
        ("--trainer.logger=lightning.pytorch.loggers.CometLogger", "comet"),
        ("--ckpt_path=last", "no file"),
    ],
)
def test_what_does_not_work_is_refused_ahead_of_training(option, words, fit, tmp_path, capsys):
    assert fit(*option.split(" --")[0:1], *(f"--{rest}" for rest in option.split(" --")[1:])) != 0
    assert words in only_line(capsys)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_metric_that_there_is_can_stop_a_run_early(fit):
    stopping = f"{{class_path: {LIGHTNING}.EarlyStopping, init_args: {{monitor: val/auroc, mode: max}}}}"
    assert fit(f"--trainer.callbacks+={stopping}") == 0


def test_a_few_batches_can_be_overfitted(fit, tmp_path):
    assert fit("--trainer.overfit_batches=2", "--trainer.max_epochs=2") == 0
    last = read_checkpoint(tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 4


def test_a_run_without_end_is_ended_by_a_signal(fit, tmp_path):
    assert fit("--trainer.max_epochs=-1", signal_itself(signal.SIGTERM, at_batch=8)) == 143
    latest = read_checkpoint(tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "latest.ckpt")
    assert latest["global_step"] == 9


def test_a_run_without_checkpoints_leaves_none(fit, tmp_path):
    assert fit("--trainer.enable_checkpointing=false") == 0
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_dry_run_names_no_folder(fit, capsys):
    assert fit("--trainer.fast_dev_run=true") == 0
    assert "None" not in capsys.readouterr().out


def test_callbacks_that_another_file_drops_are_named(fit, tmp_path, capsys):
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({"trainer": {"callbacks": [{"class_path": f"{LIGHTNING}.DeviceStatsMonitor"}]}}))
    assert fit("--config=configs/cancernet.yaml", f"--config={other}", "--trainer.fast_dev_run=true") == 0
    said = capsys.readouterr().err
    assert "ExponentialAveraging of cancernet.yaml is dropped: other.yaml has trainer.callbacks of its own" in said


def test_settings_and_metric_of_a_run_stand_in_the_hparams_tab(original_run):
    events = EventAccumulator(str(original_run[0]))
    events.Reload()
    assert "_hparams_/session_start_info" in events.summary_metadata
    assert 0 < events.Scalars("hp_metric")[-1].value <= 1


def test_a_calibration_on_a_part_says_so(fit, tmp_path, capsys):
    assert fit("--data.batch_size=8", "--trainer.limit_val_batches=2", "--trainer.limit_train_batches=2") == 0
    assert "from 16 of 20 validation patches" in capsys.readouterr().out
    found = recorded_calibration(read_checkpoint(next(Path(tmp_path).rglob("last.ckpt"))))
    assert found is not None
    assert (found["patches"], found["part_of"]) == (16, 20)
