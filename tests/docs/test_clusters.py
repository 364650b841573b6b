"""The commands of docs/clusters.md that start processes: each is parsed by the program that it is for."""

import re
from importlib import import_module

import pytest
from torch.distributed.run import get_args_parser

from cancernet.cli import main as cancernet
from tests.docs.pages import ROOT, fences, inline_code, script_commands, shell_lines, split

PAGE = ROOT / "docs" / "clusters.md"
STARTED = [split(line) for line in shell_lines(PAGE) if line.startswith(("torchrun", "srun"))]
DASK = [words for words in script_commands(PAGE) if words[1:3] == ["-m", "dask"]]


def after(words: list[str], word: str) -> list[str]:
    return words[words.index(word) + 1 :]


def test_the_page_has_commands():
    assert [len(STARTED), len(DASK)] == [3, 2]


@pytest.mark.parametrize("words", [words for words in STARTED if words[0] == "torchrun"], ids=" ".join)
def test_torchrun_starts_as_many_processes_as_the_trainer_asks_for(words):
    given = get_args_parser().parse_args(words[1:])
    options = after(words, "fit")
    assert (given.module, given.training_script) == (True, "cancernet")
    assert given.nproc_per_node == after(options, "--trainer.devices")[0]
    nodes = after(options, "--trainer.num_nodes")[0] if "--trainer.num_nodes" in options else "1"
    assert given.nnodes.split(":")[-1] == nodes


def test_slurm_starts_as_many_processes_as_the_trainer_asks_for():
    (block,) = fences(PAGE, "bash")
    given = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", block))
    (words,) = [words for words in STARTED if words[0] == "srun"]
    assert given["nodes"] == after(words, "--trainer.num_nodes")[0]
    assert given["ntasks-per-node"] == given["gpus-per-node"] == after(words, "--trainer.devices")[0]


def test_the_timeout_of_the_page_is_one_that_fit_takes(capsys):
    (options,) = [code for code in inline_code(PAGE) if code.startswith("--trainer.strategy.class_path")]
    assert cancernet(["fit", *options.split(), "--print_config"]) == 0
    assert "timeout: 0:10:00" in capsys.readouterr().out


@pytest.mark.parametrize("words", DASK, ids=" ".join)
def test_dask_takes_the_options(words):
    command = import_module(f"distributed.cli.dask_{words[3]}").main
    command.make_context(words[3], words[4:])
