"""A wrong option is said as a user would say it, whichever package refuses it."""

import pytest

from cancernet.cli import main
from tests.output import only_line


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--trainer.max_epochs=nonsense", "--trainer.max_epochs: expected null or int, got nonsense"),
        ("--trainer.max_epochs=-7", "must be a non-negative integer or -1"),
        ("--data.batch_size=1e99", "--data.batch_size: expected int, got 1e+99"),
        ("--data.seed=-1", "data.seed: expected 0 or more, got -1"),
        ("--trainer.accelerator=abacus", "accelerator='abacus'"),
        ("--trainer.callbacks=nosuch.Class", "No module named 'nosuch'"),
        ("--trainer.callbacks=[{class_path: lightning.pytorch.callbacks.EarlyStopping}]", "'monitor' is required"),
        ("--trainer.logger=lightning.pytorch.loggers.WandbLogger", "pip install -U 'wandb"),
        ("--model.optimizer.name=bad", "--model.optimizer.name: expected adagrad or adamw or sgd, got bad"),
        ("nonsense", "nrecognized arguments: nonsense"),
    ],
)
def test_what_is_wrong_with_an_option_is_one_short_line(option, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--trainer.accelerator=cpu", option]) == 2
    said = only_line(capsys)
    assert words in said
    assert "<class" not in said
    assert len(said) < 400
