"""What the tests of README and docs read: pages, their parts and commands, and what the commands say of themselves."""

import contextlib
import io
import re
import shlex
from functools import cache
from importlib import import_module
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from cancernet.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAM = "-m cancernet "
"""How a command of the program begins in a page, behind whatever starts it."""


@cache
def tokens(page: Path) -> list[Token]:
    """Parse a page as GitHub does; inline parts follow the block that they stand in."""
    blocks = MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))
    return [token for block in blocks for token in (block, *(block.children or ()))]


def fences(page: Path, language: str | None = None) -> list[str]:
    """Return the code blocks of a page, of all languages or of one ("" for those that name none)."""
    blocks = [token for token in tokens(page) if token.type == "fence"]
    return [block.content for block in blocks if language is None or block.info == language]


def shell_lines(page: Path) -> list[str]:
    """Return the lines of a page's blocks of commands, continued ones joined and without comments."""
    lines = "".join([*fences(page, ""), *fences(page, "bash")]).replace("\\\n", " ").splitlines()
    return [line.lstrip("!") for line in lines if not line.startswith("#")]


def inline_code(page: Path) -> list[str]:
    """Return the code within the text of a page."""
    return [token.content for token in tokens(page) if token.type == "code_inline"]


def split(line: str) -> list[str]:
    """Split a command as a shell does, without what follows a comment's sign."""
    return shlex.split(line, comments=True)


def program_commands(page: Path) -> list[list[str]]:
    """Return the arguments of each command of the program in a page."""
    lines = [*shell_lines(page), *inline_code(page)]
    return [split(line.split(PROGRAM, 1)[1]) for line in lines if PROGRAM in line]


def script_commands(page: Path) -> list[list[str]]:
    """Return the words of each command of a page that begins with a script."""
    return [split(line) for line in [*shell_lines(page), *inline_code(page)] if line.startswith("scripts/")]


@cache
def help_of(command: str) -> str:
    """Return what `cancernet COMMAND --help` prints."""
    return _printed(main, [command, "--help"])


@cache
def help_of_module(module: str) -> str:
    """Return what a module of `scripts` prints when asked for help."""
    with contextlib.suppress(ModuleNotFoundError):
        return _printed(import_module(f"{module}.__main__").main, ["--help"])
    return _printed(import_module(module).main, ["--help"])


def options_of(text: str) -> set[str]:
    """Return the names of the options that a help text explains.

    >>> sorted(options_of("--seed SEED  of --data.split"))
    ['--data.split', '--seed']
    """
    return set(re.findall(r"--[a-z][\w.-]*\w", text))


def _printed(call, arguments: list[str]) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        assert call(arguments) == 0
    return output.getvalue()
