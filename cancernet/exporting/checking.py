"""Ask an exported file in the runtime it is for, in a process that knows nothing of us, and compare the answers."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from cancernet.errors import InputError

SCRIPT = Path(__file__).with_name("answer.py")
TOLERANCE = 1e-4
"""Largest difference in probability that an export may have. Single precision gives some 1e-7 in most kernels."""
BACKENDS = ("torch", "tensorflow", "jax")
TIME_LIMIT = 1800
"""Seconds after which a runtime is given up."""


@dataclass(frozen=True)
class Agreement:
    """What came of one check.

    Attributes:
        runtime: Name and version; of a runtime that is not installed, the package that is missing.
        difference: Largest absolute difference in probability; None where the runtime is not installed.
    """

    runtime: str
    difference: float | None


def check(form: str, file: Path, patches: np.ndarray, expected: np.ndarray) -> list[Agreement]:
    """Check a file in every runtime that can open it.

    Args:
        form: The format.
        file: The file.
        patches: (N, H, W, 3) uint8.
        expected: (N,) probability of IDC.

    Returns:
        One entry for each runtime; for what Keras opens, each of its backends is one.

    Raises:
        InputError: A runtime cannot open or run the file.
    """
    if form not in ("keras", "weights"):
        return [ask(form, file, patches, expected)]
    return [
        ask(form, file, patches, expected, backend=backend)
        if find_spec(backend) is not None
        else Agreement(f"Keras on {backend}", None)
        for backend in BACKENDS
    ]


def ask(
    form: str,
    file: Path,
    patches: np.ndarray,
    expected: np.ndarray,
    backend: str | None = None,
    python: str = sys.executable,
) -> Agreement:
    """Run the file in one fresh process, on the CPU.

    Args:
        form: The format.
        file: The file.
        patches: (N, H, W, 3) uint8.
        expected: (N,) probability of IDC.
        backend: Of Keras, where Keras opens the file.
        python: The interpreter, of whatever environment.

    Raises:
        InputError: It cannot open or run the file, or gives other than N finite answers.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if backend is not None:
        environment["KERAS_BACKEND"] = backend
    with tempfile.TemporaryDirectory() as folder:
        given, answers = Path(folder, "patches.npy"), Path(folder, "answers.npy")
        np.save(given, patches)
        command = [python, "-I", str(SCRIPT), form, str(file.resolve()), str(given), str(answers)]
        # Away from the checkout, whose package must not be found by chance.
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
        )
        said = done.stdout.strip().splitlines()
        if done.returncode == 3 and said:
            return Agreement(json.loads(said[-1])["missing"], None)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            raise InputError(f"export: the {form} file does not run where it should ({reason}); nothing was written")
        given_back = np.load(answers)
    if given_back.shape != expected.shape or not np.isfinite(given_back).all():
        raise InputError(f"export: the {form} file gives other than one probability a patch; nothing was written")
    return Agreement(json.loads(said[-1])["runtime"], float(np.abs(given_back - expected).max()))
