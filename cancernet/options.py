"""Parsers of options whose errors are one line."""

import argparse
from typing import NoReturn

from cancernet.errors import DEBUG, InputError, brief


class OneLineErrors:
    """Mixed into a parser of argparse or jsonargparse: an error is an `InputError`, without the usage text."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise `InputError` with the message on one line, and the way out where `hint` knows one."""
        line = brief(message)
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
