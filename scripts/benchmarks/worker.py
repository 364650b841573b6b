"""A worker: a process that answers one line of JSON with one line of JSON. Both of its ends, in the standard library.

Nothing else is imported, as Keras' worker may run on an interpreter that has little more than TensorFlow.
"""

import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any


class Worker:
    """The asking end; the process ends with the ``with`` block. BENCHMARK_VERBOSE=1 shows its standard error.

    Args:
        module: Run with ``python -m``; its `serve` answers.
        arguments: Of the module.
        environment: Environment variables of the process.
        python: Interpreter.
    """

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str], python: str | None = None) -> None:
        self.process = subprocess.Popen(
            [python or sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("BENCHMARK_VERBOSE") else subprocess.DEVNULL,
            text=True,
            env=dict(environment),
        )
        self._answer()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"{self.process.args!r} ended without an answer; BENCHMARK_VERBOSE=1 shows why")

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def serve(answer: Callable[..., dict[str, Any]]) -> None:
    """Report readiness, then answer each line of standard input until it ends: the answering end."""
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), flush=True)


def time_steps(step: Callable[[], Any], steps: int, images: int) -> dict[str, float]:
    """Time steps after one that does not count, and give free memory back, which the other workers need.

    Args:
        step: Makes one step.
        steps: How many are timed.
        images: Images a step takes.

    Returns:
        `value`: images a second.
    """
    step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = time.perf_counter() - start
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    return {"value": images * steps / seconds}
