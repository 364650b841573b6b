"""A run that diverges stops where it does; what was good is kept."""

import pytest
import torch
from lightning.pytorch import Callback

from cancernet.checkpoints import read_checkpoint
from cancernet.cli import main
from cancernet.training.callbacks.divergence import IN_A_ROW
from tests.output import only_line
from tests.training.interrupted import QUIET, SMALL


class Scale(Callback):
    """Scale the weights of the classifier once."""

    def __init__(self, factor: float, at_batch: int) -> None:
        self.factor = factor
        self.at_batch = at_batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.fit_loop.total_batch_idx == self.at_batch:
            with torch.no_grad():
                pl_module.network.classifier.kernel.mul_(self.factor)


@pytest.fixture
def fit(archive, cache, tmp_path):
    def run(*options: str) -> int:
        data = [f"--data.root={archive}", f"--data.cache={cache}"]
        return main(["fit", *data, *SMALL, *QUIET, f"--trainer.default_root_dir={tmp_path}", *options])

    return run


def scale(factor: float | str, at_batch: int) -> str:
    arguments = f"{{factor: {factor}, at_batch: {at_batch}}}"
    return f"--trainer.callbacks+={{class_path: {__name__}.Scale, init_args: {arguments}}}"


def test_a_rate_that_is_far_too_high_stops_at_the_batch(fit, tmp_path, capsys):
    assert fit("--model.optimizer.name=sgd", "--model.optimizer.lr=1e30") == 2
    line = only_line(capsys)
    assert "the loss of batch 1 of epoch 0 is" in line
    assert "it holds patches of the cases 7000, 7" in line
    assert "no checkpoint had been written" in line
    assert not list(tmp_path.rglob("*.ckpt"))


def test_the_last_good_checkpoint_is_kept(fit, tmp_path, capsys):
    assert fit(scale(".nan", at_batch=8)) == 2
    line = only_line(capsys)
    assert "the loss of batch 2 of epoch 1 is nan" in line
    kept = tmp_path / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt"
    assert f"the last good checkpoint is {kept}" in line
    assert read_checkpoint(kept)["epoch"] == 0


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--checkpoint.every_n_train_steps=1", "weights are no longer finite after step 1"),
        ("--trainer.limit_train_batches=1", "the validation loss of epoch 0 is"),
    ],
)
def test_weights_that_a_step_spoils_are_not_saved(option, words, fit, tmp_path, capsys):
    """The rate makes them infinite, and no batch has shown it yet."""
    assert fit("--model.optimizer.name=sgd", "--model.optimizer.lr=1e38", option) == 2
    assert words in only_line(capsys)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_a_loss_that_explodes_and_stays_finite_gets_one_warning(fit):
    small = ["--data.batch_size=8", "--model.optimizer.name=sgd", "--model.optimizer.lr=1e-12"]
    with pytest.warns(UserWarning, match="The training loss explodes: above 10 times") as caught:
        assert fit(*small, scale(1e4, at_batch=30)) == 0
    assert IN_A_ROW == 20
    assert len([one for one in caught if "explodes" in str(one.message)]) == 1
