"""Every command of README and docs has a command and options that exist."""

import re
from importlib.util import find_spec

import pytest

from cancernet.cli import LIGHTNING_COMMANDS, OWN_COMMANDS, main
from tests.docs.pages import (
    PAGES,
    ROOT,
    help_of,
    help_of_module,
    inline_code,
    options_of,
    program_commands,
    script_commands,
    split,
)

COMMANDS = {**LIGHTNING_COMMANDS, **OWN_COMMANDS}
FITS = sorted(
    {
        " ".join(word.removeprefix("CancerNet/") for word in words[1:])
        for page in PAGES
        for words in program_commands(page)
        if words[0] == "fit" and "..." not in " ".join(words) and "--help" not in words
    }
)


def unknown(words: list[str], known: set[str]) -> list[str]:
    """Return the options among words that are not known; of one with dots, its first parts may be."""

    def is_known(option: str) -> bool:
        return option in known or ("." in option and is_known(option.rsplit(".", 1)[0]))

    given = [word.split("=")[0].rstrip(",.") for word in words if re.match(r"--[a-z]", word)]
    return [option for option in given if not is_known(option) and option != "--debug"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_of_the_program_has_options_that_are_there(page):
    short = [
        split(code) for code in inline_code(page) if code.split(" ")[0] in COMMANDS and re.search(r" [A-Z-]", code)
    ]
    for words in [*program_commands(page), *short]:
        if words[0] in ("COMMAND", "--help"):
            continue
        assert words[0] in COMMANDS, f"{page.name}: {words}"
        words = [part for word in words for part in word.strip("[]").split("|")]
        assert unknown(words[1:], options_of(help_of(words[0]))) == [], f"{page.name}: {words}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_an_option_that_is_named_alone_is_one_of_fit_s(page):
    named = [code.split(" ") for code in inline_code(page) if re.match(r"--(data|model|trainer|checkpoint)\.", code)]
    assert [option for words in named for option in unknown(words, options_of(help_of("fit")))] == []


@pytest.mark.parametrize("options", FITS)
def test_a_training_command_is_one_that_fit_takes(options, capsys):
    assert main(["fit", *split(options), "--print_config"]) == 0
    assert "max_epochs: " in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_script_is_there_and_has_the_options(page):
    for words in script_commands(page):
        file = ROOT / words[0]
        assert file.exists(), f"{page.name}: {words}"
        if file.is_dir() or file.suffix == ".txt":
            continue
        text = file.read_text(encoding="utf-8")
        module = words[2] if words[0] == "scripts/python" else "".join(re.findall(r"exec .* -m (scripts\S+)", text))
        known = (
            options_of(help_of_module(module)) | options_of(help_of("fit")) if module.startswith("scripts.") else None
        )
        if module and known is None:
            assert find_spec(module) is not None, f"{page.name}: {words}"
        else:
            assert unknown(words[1:], known or options_of(text)) == [], f"{page.name}: {words}"
