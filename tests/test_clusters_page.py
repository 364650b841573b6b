"""The commands of docs/clusters.md: each is parsed by the program that it is for."""

import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from cancernet.cli import main as cancernet

PAGE = (Path(__file__).parents[1] / "docs" / "clusters.md").read_text()
BLOCKS = re.findall(r"```(?:bash)?\n(.*?)```", PAGE, re.DOTALL)
LINES = [line.lstrip("!") for block in BLOCKS for line in block.splitlines()]
TRAINING = [shlex.split(line) for line in LINES if "-m cancernet" in line]
STUDIES = [shlex.split(line) for line in LINES if line.startswith("scripts/")]


def after(words: list[str], word: str) -> list[str]:
    return words[words.index(word) + 1 :]


def test_the_page_has_commands():
    assert len(TRAINING) == 5
    assert len(STUDIES) == 5


@pytest.mark.parametrize("words", [words for words in TRAINING if "fit" in words], ids=" ".join)
def test_a_training_command_is_one_that_fit_takes(words, capsys):
    options = [option.removeprefix("CancerNet/") for option in after(words, "fit")]
    assert cancernet(["fit", *options, "--print_config"]) == 0
    assert "max_epochs: 32" in capsys.readouterr().out


@pytest.mark.parametrize("words", [words for words in TRAINING if words[0] == "torchrun"], ids=" ".join)
def test_torchrun_starts_as_many_processes_as_the_trainer_asks_for(words):
    given = get_args_parser().parse_args(words[1:])
    options = after(words, "fit")
    assert (given.module, given.training_script) == (True, "cancernet")
    assert given.nproc_per_node == after(options, "--trainer.devices")[0]
    nodes = after(options, "--trainer.num_nodes")[0] if "--trainer.num_nodes" in options else "1"
    assert given.nnodes.split(":")[-1] == nodes


def test_slurm_starts_as_many_processes_as_the_trainer_asks_for():
    (block,) = [block for block in BLOCKS if "#SBATCH" in block]
    given = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", block))
    (words,) = [words for words in TRAINING if words[0] == "srun"]
    assert given["nodes"] == after(words, "--trainer.num_nodes")[0]
    assert given["ntasks-per-node"] == given["gpus-per-node"] == after(words, "--trainer.devices")[0]


def test_the_timeout_of_the_page_is_one_that_fit_takes(capsys):
    (options,) = re.findall(r"`(--trainer.strategy.class_path [^`]+)`", PAGE)
    assert cancernet(["fit", *options.split(), "--print_config"]) == 0
    assert "timeout: 0:10:00" in capsys.readouterr().out


@pytest.mark.parametrize("words", STUDIES, ids=" ".join)
def test_a_study_s_command_has_options_that_are_there(words, capsys):
    if words[1:3] == ["-m", "dask"]:
        command = import_module(f"distributed.cli.dask_{words[3]}").main
        command.make_context(words[3], words[4:])
        return
    with pytest.raises(SystemExit):
        import_module(f"scripts.studies.{Path(words[0]).name}").main(["--help"])
    text = capsys.readouterr().out
    own = [word for word in words if word.startswith("--") and not word.startswith(("--config", "--data."))]
    assert [option for option in own if option not in text] == []
