"""The other side of `rounds`: a process that does what it is asked, a line at a time. Standard library only."""

import contextlib
import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def reset_peak() -> None:
    """Let the peak of resident memory start anew (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def memory_line(name: str, process: int | str = "self") -> float:
    """Return a line of /proc/PID/status in megabytes (VmHWM, VmRSS, RssAnon); 0 where there is none."""
    try:
        for line in Path(f"/proc/{process}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def timed(step: Callable[[], Any], steps: int, images: int) -> dict[str, float]:
    """Time some steps after one that does not count, and give the memory back, which the others need.

    Returns:
        `value`, images a second, and `peak`, megabytes resident at most.
    """
    reset_peak()
    step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = time.perf_counter() - start
    peak = memory_line("VmHWM")
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return {"value": images * steps / seconds, "peak": peak}


def serve(answer: Callable[..., dict[str, Any]], versions: dict[str, str]) -> None:
    """Say which versions run here, then answer each line of standard input until it ends."""
    print(json.dumps(versions), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)
