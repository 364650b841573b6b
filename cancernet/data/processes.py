"""Worker processes for decoding patches and for drawing synthetic slides: how many, and how they start."""

import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import SpawnContext, SpawnProcess

import psutil


def available_cores() -> int:
    """Return the number of processor cores that this process may use, 1 or more."""
    process = psutil.Process()
    return len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count() or 1


class _LightProcess(SpawnProcess):
    """A spawned process that does not run the caller's script again.

    A plain one would: it asks every script for an `if __name__ == "__main__"`, fails where the script came through a
    pipe, and imports all that the script does, which our workers do not need.
    """

    def start(self) -> None:
        main = vars(sys.modules["__main__"])
        hidden: dict[str, object] = {name: main.pop(name) for name in ("__file__", "__spec__") if name in main}
        main["__spec__"] = None
        try:
            super().start()
        finally:
            main.update(hidden)


class _LightContext(SpawnContext):
    Process = _LightProcess


def start_pool(workers: int, initializer: Callable[..., object], *arguments: object) -> ProcessPoolExecutor:
    """Start a pool of processes, each set up by `initializer(*arguments)`.

    They are spawned, not forked: the caller may have threads (of torch, of TensorBoard), and a fork leaves their locks
    held for ever.
    """
    return ProcessPoolExecutor(workers, _LightContext(), initializer, arguments)
