"""What the command line says of itself."""

import subprocess
import sys
from pathlib import Path

import pytest

from cancernet import __version__
from cancernet.cli import LIGHTNING_COMMANDS, OWN_COMMANDS, main
from tests.docs.pages import help_of
from tests.output import only_line

ROOT = Path(__file__).parent.parent


def test_help_lists_all_commands(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in [*LIGHTNING_COMMANDS, *OWN_COMMANDS])
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("command", ["fit", *OWN_COMMANDS])
def test_every_option_is_explained(command):
    text = help_of(command)
    assert "help" in text
    if command == "fit":
        for option in (
            "--data.root",
            "--data.split",
            "--model.optimizer",
            "--trainer.precision",
            "--checkpoint.monitor",
        ):
            assert option in text


@pytest.mark.parametrize(
    ("arguments", "words"), [([], "a command comes first"), (["nosuch"], "unknown command 'nosuch'")]
)
def test_a_missing_or_unknown_command_is_named(arguments, words, capsys):
    assert main(arguments) == 2
    assert words in only_line(capsys)


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from cancernet.cli import main; main(['--help']); "
        "heavy = {'torch', 'keras', 'lightning', 'numpy', 'pandas', 'jsonargparse'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
