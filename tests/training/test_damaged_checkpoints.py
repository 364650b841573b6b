"""Every command that reads a checkpoint refuses a damaged one, in one line and before any work."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cancernet.checkpoints import read_checkpoint
from cancernet.cli import main
from cancernet.training.task import ClassificationTask
from tests.output import only_line
from tests.training.calibrated import QUIET


def commands(file: Path, cache: Path, root: Path) -> list[list[str]]:
    """The command lines that read a checkpoint; `fit` comes last."""
    evaluate = [[name, f"--ckpt_path={file}", f"--data.cache={cache}", *QUIET] for name in ("validate", "test")]
    fit = [
        "fit",
        "--config=configs/cancernet.yaml",
        f"--data.cache={cache}",
        f"--trainer.default_root_dir={root}",
        *QUIET,
    ]
    return [
        *evaluate,
        ["predict", f"--ckpt_path={file}", f"--data.cache={cache}", *QUIET],
        ["calibrate", str(file), f"--cache={cache}"],
        ["export", str(file), f"--output={root / 'a.onnx'}", "--format=onnx"],
        [*fit, f"--ckpt_path={file}", *QUIET],
        [*fit, f"--model.weights={file}", *QUIET],
    ]


@pytest.fixture
def file(calibrated_run, tmp_path) -> Path:
    return shutil.copy(calibrated_run / "checkpoints" / "last.ckpt", tmp_path / "last.ckpt")


def change(file: Path, action: Callable[[dict], object]) -> None:
    content = read_checkpoint(file, mapped=False)
    action(content)
    torch.save(content, file)


def refused(file: Path, cache: Path, capsys, words: str, only: slice = slice(None)) -> None:
    for command in commands(file, cache, file.parent)[only]:
        assert main(command) == 2, command
        assert words in only_line(capsys), command
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


def test_flipped_bits_are_found_by_every_command(file, cache, capsys):
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 16
    file.write_bytes(damaged)
    refused(file, cache, capsys, "last.ckpt: not a checkpoint that can be read safely (its content is damaged: the")


def test_a_weight_that_is_not_finite_is_found(file, cache, capsys):
    change(file, lambda content: next(iter(content["state_dict"].values())).fill_(float("nan")))
    refused(file, cache, capsys, "holds values that are not finite, so training diverged", slice(2, 4))


def test_a_pickle_is_not_run(file, cache, capsys):
    class Hostile:
        def __reduce__(self):
            return (Path.touch, (file.with_name("ran"),))

    file.write_bytes(pickle.dumps(Hostile()))
    refused(file, cache, capsys, "last.ckpt: not a checkpoint that can be read safely", slice(-2, None))


def test_a_missing_weight_is_named_by_commands(file, cache, store, capsys):
    change(file, lambda content: content["state_dict"].pop("network.head_dense.bias"))
    words = "the checkpoint lacks the weight"
    for command in commands(file, cache, file.parent)[2:-1]:
        data = [f"--data.root={store.path}"] if command[0] == "fit" else []
        assert main([*command, *data]) == 2, command
        assert words in only_line(capsys), command


@pytest.mark.parametrize(
    ("name", "weight", "words"),
    [
        ("network.head_dense.bias", None, "the checkpoint lacks the weight network.head_dense.bias"),
        ("network.head_dense.bias", torch.zeros(3), "the weight network.head_dense.bias is of shape (3,)"),
        ("network.more", torch.zeros(3), "the checkpoint has the weight network.more"),
    ],
)
def test_a_weight_that_is_missing_or_of_another_shape_is_named(file, name, weight, words):
    state = dict(read_checkpoint(file)["state_dict"])
    if weight is None:
        del state[name]
    else:
        state[name] = weight
    with pytest.raises(Exception, match=words.replace("(", "\\(").replace(")", "\\)")):
        ClassificationTask().load_state_dict(state)


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_checkpoint_that_does_not_say_what_it_has_seen_is_not_evaluated(command, file, cache, store, capsys):
    change(file, lambda content: content.pop("IDCDataModule"))
    options = [f"--ckpt_path={file}", f"--data.root={store.path}", f"--data.cache={cache}", *QUIET]
    assert main([command, *options]) == 2
    assert "no record of its data" in only_line(capsys)
