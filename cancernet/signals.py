"""SIGTERM and Ctrl-C: a command ends with status 143 or 130; training first writes a checkpoint to go on from."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

NUMBERS = (signal.SIGTERM, signal.SIGINT)


class Stopped(SystemExit):
    """A signal ends the command, with the status of a process that the signal killed.

    Attributes:
        name: Name of the signal.
        said: Whether the user has been told already.
    """

    def __init__(self, number: int, said: bool = False) -> None:
        super().__init__(128 + number)
        self.name = signal.Signals(number).name
        self.said = said

    def __str__(self) -> str:
        """Return one line for the user."""
        return f"stopped by {self.name}"


class Watch:
    """What this process does with its signals: end at once, or note them for as long as something is to be finished.

    Attributes:
        received: The signal that was noted; 0 for none.
    """

    def __init__(self) -> None:
        self.received = 0
        self._process = 0
        self._noting = self._ending = False
        self._replaced: dict[int, Any] = {}
        self._at_once: Callable[[], object] = lambda: None

    @contextmanager
    def watching(self) -> Iterator[None]:
        """End the block by `Stopped` at a signal; in a thread, which gets none, nothing changes."""
        before = self._replaced
        self.received, self._noting, self._ending, self._replaced = 0, False, False, {}
        self.take_over()
        try:
            yield
        finally:
            self._give_back()
            self._replaced = before

    def take_over(self, also: int | None = None) -> None:
        """Handle the signals here again, whoever took them since, and another one too."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._process = os.getpid()
        for number in NUMBERS if also is None else (*NUMBERS, also):
            if (previous := signal.getsignal(number)) != self._handle:
                self._replaced.setdefault(number, previous)
                signal.signal(number, self._handle)

    def note(self, at_once: Callable[[], object], also: int | None = None) -> None:
        """Note signals from now on, for the caller to look at `received`; a second Ctrl-C ends the process at once.

        Args:
            at_once: Called before that.
            also: Another signal to note.
        """
        self.take_over(also)
        self.received, self._ending = 0, False
        self._noting, self._at_once = True, at_once

    def end_noting(self) -> None:
        """End at a signal again; at once where one was noted."""
        self._noting = False
        if self.received:
            self.end(self.received)

    def forget(self) -> None:
        """End at a signal again, without the one that was noted: something else ends the command."""
        self._noting, self.received = False, 0

    def end(self, number: int) -> None:
        """Raise `Stopped`; further signals are ignored from here on, while everything is put away."""
        self._ending, self._noting = True, False
        raise Stopped(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker, which was forked from here
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self._ending:
            return
        elif not self._noting:
            self.end(number)
        elif number == self.received == signal.SIGINT:
            self._at_once()
            os._exit(128 + number)
        elif not self.received:
            self.received = number
            # Not print: the signal may have come in the middle of one.
            os.write(2, b"\nstopping when this batch is done (Ctrl-C again: at once)\n")

    def _give_back(self) -> None:
        for number, handler in self._replaced.items():
            if threading.current_thread() is threading.main_thread():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


watch = Watch()
"""The watch of this process."""
