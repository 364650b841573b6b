"""Parsers of options whose errors are one line."""

import argparse
import re
from typing import NoReturn

from cancernet.errors import DEBUG, InputError, brief, one_line

_TRIED = re.compile(r"Expected an? |Not a valid subclass|a class path \(str\)|a dict with")
"""Items of an error of jsonargparse that only list what it tried."""


def shorten(line: str) -> str:
    r"""Say a wrong value as a user would: jsonargparse lists the classes of Python that it tried.

    >>> shorten("Parser key \"data.seed\": Expected a <class 'int'>. Got value: 1.5")
    '--data.seed: expected int, got 1.5'
    """
    key = re.match(r'Parser key "([^"]+)": ', line)
    place = f"--{key[1]}: " if key else ""
    if union := re.search(r"Subtypes: \[(.*?)\] Errors: (.*) Given value type: .*? Given value: (.*)", line):
        items = [item for item in re.split(r"(?:^| )- ", union[2]) if item and not _TRIED.match(item)]
        if items:
            return place + "; ".join(items)
        expected, received = union[1], union[3]
    elif single := re.search(r"Expected an? (.*?)\. Got value: (.*)", line):
        expected, received = single[1], single[2]
    else:
        return line
    types = re.sub(r"(?:typing\.Literal|<class )\[?'?(?:\w+\.)*([^\]>]*?)'?[\]>]", r"\1", expected)
    types = types.replace("NoneType", "null").replace("'", "")
    return f"{place}expected {' or '.join(dict.fromkeys(types.split(', ')))}, got {received}"


class OneLineErrors:
    """Mixed into a parser of argparse or jsonargparse: an error is an `InputError`, without the usage text."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `InputError` with the message on one line, and the way out where `hint` knows one."""
        line = brief(shorten(one_line(message)))
        raise InputError(line + self.hint(line)) from ex

    def hint(self, line: str) -> str:
        """Return what to add to an error's line, here nothing."""
        return ""

    def format_help(self) -> str:
        """Return the help, with the option that `errors.explained` gives every command."""
        text: str = super().format_help()  # type: ignore[misc]
        return f"{text}\n  {DEBUG:<22}show the traceback of an error, which is otherwise one line\n"


class OptionParser(OneLineErrors, argparse.ArgumentParser):
    """The parser of argparse with errors of one line."""
