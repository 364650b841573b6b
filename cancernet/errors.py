"""What went wrong, said in one line: by the user's hand (`InputError`), or by a fault of any package."""

import logging
import sys
import traceback
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import wraps

from cancernet.signals import Stopped, watch

FAULT, INPUT, INTERRUPTED = 1, 2, 130
"""Exit statuses besides 0; the last is the shell's own for Ctrl-C."""
DEBUG = "--debug"
LONGEST = 500
"""Letters of another package's message that are shown."""

_debugging = ContextVar("debugging", default=False)


class InputError(Exception):
    """Something given to the program cannot be used.

    The message is one line for the person at the terminal: what is wrong, where (the file, option or value as it was
    received) and the way out. The command line prints it without a traceback and leaves with status 2.
    """


def printable(text: str) -> str:
    r"""Escape what does not print: text from a file could steer the terminal.

    >>> printable("9000/1/\x1b[31m.png")
    '9000/1/\\x1b[31m.png'
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def brief(message: object) -> str:
    """Return a message of another package on one line that is not too long (see `one_line`)."""
    line = one_line(message)
    return line[:LONGEST] + " ..." if len(line) > LONGEST else line


def listing(names: Sequence[str], most: int = 5) -> str:
    """Join names with commas and "and"; beyond `most` the rest is counted.

    >>> listing(["a", "b", "c"]), listing(["a", "b", "c"], most=1)
    ('a, b and c', 'a and 2 more')
    """
    if len(names) > most:
        names = [*names[:most], f"{len(names) - most} more"]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else "none"


def one_line(message: object) -> str:
    r"""Return a message of another package on one line; of an error without a message, its name.

    >>> one_line(ValueError("not\n   a number")), one_line(MemoryError())
    ('not a number', 'MemoryError')
    """
    line = " ".join(str(message).split())
    return line or type(message).__name__


def explained(program: str) -> Callable[[Callable[[list[str]], int]], Callable[..., int]]:
    """Make a command of a function that takes arguments and returns an exit status: each error becomes one line.

    Args:
        program: The name that the line begins with.

    Returns:
        A decorator. The command takes the arguments, by default those of the process, and returns the status of the
        function; 2 after an `InputError`, 1 after any other error, 130 after Ctrl-C and 143 after SIGTERM. With
        `--debug` among the arguments the traceback is shown as well; it always goes to the log of this module, at
        level DEBUG.
    """

    def decorate(command: Callable[[list[str]], int]) -> Callable[..., int]:
        @wraps(command)
        def run(arguments: Sequence[str] | None = None) -> int:
            given = list(sys.argv[1:] if arguments is None else arguments)
            # A command that runs another one in this process hands the wish down.
            before = _debugging.set(_debugging.get() or DEBUG in given)
            try:
                with watch.watching():
                    return command([word for word in given if word != DEBUG])
            except Stopped as stop:
                if not stop.said:
                    print(f"{program}: {stop}", file=sys.stderr, flush=True)
                return int(stop.code or 0)
            except KeyboardInterrupt:
                print(f"{program}: interrupted", file=sys.stderr)
                return INTERRUPTED
            except Exception as error:
                return _report(program, error)
            finally:
                _debugging.reset(before)

        return run

    return decorate


def _report(program: str, error: Exception) -> int:
    """Print an error and return its exit status."""
    from cancernet.faults import describe_fault  # only a command that failed needs it

    logging.getLogger(__name__).debug("%s failed", program, exc_info=error)
    if _debugging.get():
        traceback.print_exception(error)
    status, line = (INPUT, str(error)) if type(error) is InputError else (FAULT, "")
    if not line or "\n" in line:
        status, line = describe_fault(error)
    print(f"{program}: error: {printable(line)}", file=sys.stderr, flush=True)
    return status
