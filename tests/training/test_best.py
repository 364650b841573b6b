"""`best.ckpt` is the best of the run with any number of files kept and after a resume; what leaves none is refused."""

from pathlib import Path

import pytest
import torch

from cancernet.checkpoints import read_checkpoint
from cancernet.cli import main
from cancernet.training.checkpoints import recorded_calibration
from tests.output import only_line

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]


@pytest.fixture(scope="module")
def options(archive, cache) -> list[str]:
    data = [f"--data.root={archive}", f"--data.cache={cache}", "--data.batch_size=32"]
    return ["--config=configs/demo.yaml", *data, *QUIET]


def fit(options: list[str], root: Path, *more: str) -> Path:
    assert main(["fit", *options, f"--trainer.default_root_dir={root}", *more]) == 0
    return root / "lightning_logs" / "version_0" / "checkpoints"


def scores(folder: Path) -> dict[str, float]:
    """What the last checkpoint says of the files that were kept, by name."""
    states = read_checkpoint(folder / "last.ckpt")["callbacks"]
    (state,) = (state for state in states.values() if state.get("monitor") == "val/auroc")
    return {Path(path).name: float(score) for path, score in state["best_k_models"].items()}


def same_weights(one: Path, other: Path) -> bool:
    first, second = (read_checkpoint(path)["state_dict"] for path in (one, other))
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.fixture(scope="module")
def three(options, tmp_path_factory) -> Path:
    return fit(options, tmp_path_factory.mktemp("three"), "--checkpoint.save_top_k=3", "--trainer.max_epochs=4")


def test_three_files_are_kept_and_the_best_of_them_is_named(three):
    kept = scores(three)
    assert len(kept) == 3
    assert {path.name for path in three.iterdir()} == {*kept, "best.ckpt", "last.ckpt"}
    best = max(kept, key=lambda name: kept[name])
    assert same_weights(three / "best.ckpt", three / best)
    assert recorded_calibration(read_checkpoint(three / "best.ckpt")) is not None
    for name in kept:
        assert name == f"epoch-{read_checkpoint(three / name)['epoch']:02d}.ckpt"


def test_a_resume_that_keeps_one_takes_the_best_of_them(three, options, tmp_path):
    resume = [f"--ckpt_path={three}/last.ckpt", "--trainer.max_epochs=5"]
    folder = fit(options, tmp_path, *resume)
    assert {path.name for path in folder.iterdir()} == {"best.ckpt", "last.ckpt"}
    assert scores(folder)["best.ckpt"] >= max(scores(three).values())


def test_a_resume_that_keeps_all_takes_over_those_that_are_there(three, options, tmp_path):
    resume = [f"--ckpt_path={three}/last.ckpt", "--trainer.max_epochs=5", "--checkpoint.save_top_k=-1"]
    folder = fit(options, tmp_path, *resume)
    kept = scores(folder)
    assert kept.keys() == {*scores(three), "epoch-04.ckpt"}
    assert {path.name for path in folder.iterdir()} == {*kept, "best.ckpt", "last.ckpt"}
    assert same_weights(folder / "best.ckpt", folder / max(kept, key=lambda name: kept[name]))


def test_last_is_the_last_epoch_though_another_one_was_validated(options, tmp_path):
    every = ["--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=2", "--checkpoint.save_last=link"]
    folder = fit(options, tmp_path, *every)
    assert not (folder / "last.ckpt").is_symlink()
    assert read_checkpoint(folder / "last.ckpt")["epoch"] == 2
    assert read_checkpoint(folder / "best.ckpt")["epoch"] == 1


def test_a_last_step_within_an_epoch_is_validated(options, tmp_path):
    folder = fit(options, tmp_path, "--trainer.max_steps=2")
    assert [read_checkpoint(folder / f"{name}.ckpt")["global_step"] for name in ("best", "last")] == [2, 2]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--checkpoint.save_top_k=0"], "checkpoint.save_top_k: 0 would keep no best.ckpt"),
        (["--checkpoint.monitor=null"], "checkpoint.monitor: best.ckpt is the best epoch by a metric"),
        (["--trainer.check_val_every_n_epoch=2"], "trainer.check_val_every_n_epoch: 2 is more than"),
        (["--trainer.limit_val_batches=0"], "trainer.limit_val_batches: 0 validates nothing"),
    ],
)
def test_a_fit_that_would_leave_no_best_is_refused_before_training(more, words, options, tmp_path, capsys):
    command = ["fit", *options, "--trainer.max_epochs=1", f"--trainer.default_root_dir={tmp_path}", *more]
    assert main(command) == 2
    assert words in only_line(capsys)
    assert list(tmp_path.rglob("*.ckpt")) == []


def test_a_fit_that_ended_before_its_first_validation_is_no_success(options, tmp_path, capsys):
    command = ["fit", *options, "--trainer.max_steps=2", "--trainer.check_val_every_n_epoch=9"]
    assert main([*command, f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=-1"]) == 2
    assert "no epoch was validated" in only_line(capsys)
    assert [path.name for path in tmp_path.rglob("*.ckpt")] == ["last.ckpt"]
