"""Contenders in processes of their own that take turns, so that whatever else the machine does falls on all alike."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
"""The checkout: interpreters other than ours find the package there."""


@dataclass
class Figure:
    """What a contender did in each turn.

    Attributes:
        name: The contender, as the table shows it.
        unit: Of the values.
        values: One a round.
        peak: Most memory resident in its process during a turn, in megabytes.
    """

    name: str
    unit: str
    values: list[float] = field(default_factory=list)
    peak: float | None = None

    @property
    def median(self) -> float:
        """Middle of all rounds."""
        return statistics.median(self.values)

    def row(self) -> dict[str, Any]:
        """Return what the JSON file holds."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "low": min(self.values),
            "high": max(self.values),
            "rounds": len(self.values),
            "peak_mb": self.peak,
        }


class Worker:
    """A process that answers one line of JSON with one line of JSON; see `cancernet.benchmark.turns`.

    Args:
        module: Run with ``python -m``.
        python: Interpreter; ours where not given.
        environment: Further environment variables.
    """

    def __init__(
        self, module: str, *arguments: str, python: str | None = None, environment: dict[str, str] | None = None
    ) -> None:
        self.process = subprocess.Popen(
            [python or sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if not os.environ.get("BENCHMARK_VERBOSE") else None,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
        )
        self.versions: dict[str, str] = self._answer()

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
        self.process.stdin.close()
        self.process.wait()


@dataclass
class Contender:
    """A name in the table, who answers for it, and what is asked in each turn."""

    name: str
    worker: Worker
    request: dict[str, Any]
    unit: str = "images/s"


def race(contenders: Sequence[Contender], rounds: int) -> list[Figure]:
    """Let everyone have a turn in each round, after one that does not count (it compiles).

    The answer of a turn has `value` in the contender's unit and `peak` in megabytes.
    """
    figures = [Figure(contender.name, contender.unit) for contender in contenders]
    for round_ in range(rounds + 1):
        for contender, figure in zip(contenders, figures, strict=True):
            start = time.perf_counter()
            answer = contender.worker.ask(**contender.request)
            seconds = time.perf_counter() - start
            value = f"{answer['value']:,.0f} {contender.unit}" if round_ > 0 else "ready"
            print(f"  round {round_}, {contender.name}: {value} ({seconds:.0f} s)", file=sys.stderr, flush=True)
            if round_ > 0:
                figure.values.append(answer["value"])
                figure.peak = max(figure.peak or 0.0, answer["peak"])
    return figures
