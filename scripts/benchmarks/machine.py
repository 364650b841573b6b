"""The machine that a measurement is made on, and the memory of the processes on it."""

import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
PACKAGES = ("torch", "torchvision", "keras", "lightning", "torchmetrics", "numpy", "pillow")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"}
"""Processor flags of bf16 instructions, on x86 and on ARM."""
MEGABYTE = 2**20


def describe_machine() -> dict[str, Any]:
    """Return processor, cores, memory, load, GPU, system and versions."""
    import torch  # only here: what imports take is measured by a process that imports this module

    process = psutil.Process()
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor_entry("model name") or platform.processor(),
        "bf16": sorted(BF16_FLAGS.intersection(f"{_processor_entry('flags')} {_processor_entry('Features')}".split())),
        "cores": len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else psutil.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": load_average(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
    }


def load_average() -> list[float]:
    """Return the load of the last 1, 5 and 15 minutes."""
    return [round(load, 2) for load in psutil.getloadavg()]


def child_environment(**variables: str) -> dict[str, str]:
    """Return the environment of a process that imports this checkout, with further variables."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


def resident_memory(process: psutil.Process) -> float:
    """Return the resident memory of a process in megabytes."""
    return process.memory_info().rss / MEGABYTE


def anonymous_memory(process: psutil.Process) -> float:
    """Return the resident memory of a process that belongs to no file, in megabytes.

    Linux counts it as RssAnon, which is resident less shared. Other systems do not tell it apart: there, all that is
    resident counts, memory-mapped stores included.
    """
    memory = process.memory_info()
    return (memory.rss - getattr(memory, "shared", 0)) / MEGABYTE


def anonymous_memory_of_tree(process: psutil.Process) -> float:
    """Return the anonymous memory of a process and all its descendants, in megabytes."""
    total = 0.0
    for member in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # ended meanwhile
            total += anonymous_memory(member)
    return total


@dataclass
class Peak:
    """The highest sample of memory so far, in megabytes."""

    megabytes: float = 0.0


@contextmanager
def watch_memory(process: int, measure: Callable[[psutil.Process], float], interval: float = 0.02) -> Iterator[Peak]:
    """Sample the memory of a process from outside, in a thread, while a ``with`` block runs.

    Args:
        process: Number of the process.
        measure: What is sampled, in megabytes.
        interval: Seconds between samples; shorter peaks can be missed.
    """
    peak, over, watched = Peak(), threading.Event(), psutil.Process(process)

    def sample() -> None:
        with suppress(psutil.Error):
            while not over.wait(interval):
                peak.megabytes = max(peak.megabytes, measure(watched))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def _processor_entry(name: str) -> str:
    """Return an entry of the first processor in /proc/cpuinfo; psutil tells neither model nor bf16 flags."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
