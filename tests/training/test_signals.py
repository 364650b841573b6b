"""SIGTERM and Ctrl-C end a command with the status that the shell knows, and a fit with a checkpoint to go on from."""

import shlex
import signal

import pytest

from cancernet.cli import main
from tests.training.interrupted import QUIET, assert_same_run, signal_itself


@pytest.mark.parametrize(
    ("number", "status", "at_batch"),
    [(signal.SIGTERM, 143, 8), (signal.SIGINT, 130, 8), (signal.SIGTERM, 143, 11), (signal.SIGTERM, 143, 17)],
    ids=["in an epoch", "by Ctrl-C", "in its last batch", "in the last batch of all"],
)
def test_a_stopped_fit_goes_on_by_the_line_that_it_prints(number, status, at_batch, original_run, tmp_path, capsys):
    whole, arguments = original_run
    options = [signal_itself(number, at_batch), f"--trainer.default_root_dir={tmp_path}"]
    assert main(["fit", *arguments, *options]) == status
    said, line, folder = capsys.readouterr().out.splitlines()[-3:]
    assert said == f"stopped by {number.name}"
    assert folder == str(tmp_path / "lightning_logs" / "version_0")
    words = shlex.split(line)
    assert main(words[words.index("fit") :]) == 0
    assert_same_run(tmp_path / "lightning_logs" / "version_1", whole)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_prediction_says_so_in_a_line(number, status, original_run, capsys):
    checkpoint = original_run[0] / "checkpoints" / "last.ckpt"
    assert main(["predict", f"--ckpt_path={checkpoint}", signal_itself(number), *QUIET]) == status
    assert capsys.readouterr().err.splitlines()[-1] == f"cancernet: stopped by {number.name}"
    assert not list(original_run[0].glob("predict-*"))
