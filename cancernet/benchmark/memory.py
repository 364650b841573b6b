"""Memory of a process and all that it starts."""

import subprocess
import sys
import threading
import time
from pathlib import Path

from cancernet.benchmark.turns import memory_line


def anonymous_memory(process: int) -> float:
    """Return the anonymous memory of a process and its descendants, summed, in megabytes (Linux)."""
    return memory_line("RssAnon", process) + sum(anonymous_memory(child) for child in _children(process))


def _children(process: int) -> list[int]:
    found: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found += map(int, file.read_text(encoding="ascii").split())
        except OSError:  # ended meanwhile
            continue
    return found


class Watch(threading.Thread):
    """Watches the anonymous memory of a process tree; `peak` is the most that was seen, in megabytes."""

    def __init__(self, process: int, interval: float = 0.05) -> None:
        super().__init__(daemon=True)
        self.process = process
        self.interval = interval
        self.peak = 0.0
        self.over = False

    def run(self) -> None:
        """Look until told that it is over."""
        while not self.over:
            self.peak = max(self.peak, anonymous_memory(self.process))
            time.sleep(self.interval)


def run_watched(arguments: list[str], environment: dict[str, str] | None = None) -> tuple[str, float, float]:
    """Run our Python with some arguments.

    Returns:
        Standard output, seconds, and the peak of anonymous memory over the process and its children, in megabytes.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    watch = Watch(process.pid)
    watch.start()
    output, errors = process.communicate()
    seconds = time.perf_counter() - start
    watch.over = True
    watch.join()
    if process.returncode != 0:
        raise RuntimeError(f"{arguments} failed: {errors.strip()[-2000:]}")
    return output, seconds, watch.peak
