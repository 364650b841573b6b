"""What went wrong on the user's side, said in one line."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

P = ParamSpec("P")


class InputError(Exception):
    """Something given to the program cannot be used.

    The message is one line for the person at the terminal: what is wrong, where (the file, option or value as it was
    received) and the way out. The command line prints it without a traceback and leaves with status 2.
    """


def one_line(message: object) -> str:
    r"""Return a message of another package on one line.

    >>> one_line(ValueError("not\n   a number"))
    'not a number'
    """
    return " ".join(str(message).split())


def explained(program: str) -> Callable[[Callable[P, int]], Callable[P, int]]:
    """Make a command of a function that returns an exit status: what the user can mend becomes one line.

    Args:
        program: The name that the line begins with.

    Returns:
        A decorator; the command returns 2 after an `InputError`, and 130 when interrupted.
    """

    def decorate(command: Callable[P, int]) -> Callable[P, int]:
        @wraps(command)
        def run(*args: P.args, **kwargs: P.kwargs) -> int:
            try:
                return command(*args, **kwargs)
            except InputError as error:
                print(f"{program}: error: {error}", file=sys.stderr)
                return 2
            except KeyboardInterrupt:
                print(f"{program}: interrupted", file=sys.stderr)
                return 130

        return run

    return decorate
