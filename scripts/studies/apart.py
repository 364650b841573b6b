"""A command in a process of its own, which does not outlive the process that wants it.

Run as a program, this module stands between the two: it starts the command, and ends it when its own standard input
closes. That is when the process at the other end of the pipe asks for it, or is gone, however it went.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from cancernet.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
GRACE = 60.0
"""Seconds that a command has to write its checkpoint when it is told to end."""
POLL = 0.2
"""Seconds between two looks at whether a command is still wanted."""


def run_apart(
    arguments: list[str],
    log: Path,
    wanted: Callable[[], bool],
    folder: Path | None = None,
    module: str = "cancernet",
    **variables: str,
) -> None:
    """Run a module in a process of its own, with one thread unless OMP_NUM_THREADS is set, and wait for its end.

    Args:
        arguments: Its command line.
        log: File that its output is added to; its folder is made.
        wanted: Asked again and again; when it says no, the command is told to end.
        folder: Its working folder.
        module: What is run, as `python -m` names it.
        **variables: Further environment variables.

    Raises:
        InputError: It failed, or was ended.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    before = log.stat().st_size if log.exists() else 0
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # Processes with several threads each hold each other up on the cores that they share.
    threads = {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, __file__, str(log), sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,
        cwd=folder,
        # The caller's folder stays off the module path: another checkout there would be imported in place of this one.
        env={**threads, **os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", **variables},
        start_new_session=True,  # or Ctrl-C would reach the command twice: from the terminal, and from here
    )
    assert process.stdin is not None
    try:
        while process.poll() is None and wanted():
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL)
    finally:
        process.stdin.close()
        status = process.wait()
    if status:
        last = _last_line(log, before)
        raise InputError(f"`{module} {arguments[0]}` ended with status {status} ({last}); its output is in {log}")


def _last_line(log: Path, start: int) -> str:
    """Return the last line that was written after a place in a file."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def main(log: str, *arguments: str) -> int:
    """Run a command until it ends or the standard input closes; return its exit status as a shell does."""
    with Path(log).open("ab") as output:
        output.write(f"$ {' '.join(arguments)}\n".encode())
        output.flush()
        command = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    unwanted = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        unwanted.set()

    threading.Thread(target=watch, daemon=True).start()
    while command.poll() is None:
        if unwanted.wait(POLL):
            _end(command)
    return command.returncode if command.returncode >= 0 else 128 - command.returncode


def _end(command: subprocess.Popen[bytes]) -> None:
    """End a command and all that it has started: politely, and after a while by force."""
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(command.pid)
        family = [first, *first.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        with suppress(subprocess.TimeoutExpired):
            command.wait(GRACE)
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    command.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
