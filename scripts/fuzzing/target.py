"""What a fuzzed reader is, and what counts as a finding."""

from collections.abc import Callable
from dataclasses import dataclass

from cancernet.errors import InputError

Run = Callable[[bytes], object]


@dataclass(frozen=True)
class Target:
    """A reader under test.

    Attributes:
        run: Reads the bytes, as a file of its own or as a part of one.
        seeds: Valid inputs, which mutations start from.
        expected: Errors that the reader documents.
    """

    run: Run
    seeds: list[bytes]
    expected: tuple[type[Exception], ...] = (InputError,)

    def __call__(self, data: bytes) -> None:
        """Run once."""
        try:
            self.run(data)
        except self.expected as error:
            if "\n" in str(error):
                raise AssertionError(f"an error of several lines: {error}") from error
