"""Compare the probabilities of an exported file, in the runtime that it is for, with those of the fused network."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from cancernet.errors import InputError
from cancernet.export.writers import ServedNetwork
from cancernet.model.registry import create_network

SCRIPT = Path(__file__).with_name("check_process.py")
TOLERANCE = 1e-4
"""Largest difference in probability that an export may have. Single precision causes about 1e-7 in most kernels."""
BACKENDS = ("torch", "tensorflow", "jax")
BATCH = 128
"""Patches per forward pass."""
TIME_LIMIT = 1800
"""Seconds after which a process is stopped."""


@dataclass(frozen=True)
class Agreement:
    """Result of a check in one runtime.

    Attributes:
        runtime: Name and version; the name of the missing package where it is not installed.
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
        One entry per runtime; each backend of Keras is one. Safetensors hold weights only, so they are loaded into a
        fresh network of this package; every other file runs in a process without the package.

    Raises:
        InputError: A runtime cannot open or run the file.
    """
    if form == "safetensors":
        return [_reload(file, patches, expected)]
    if form not in ("keras", "weights"):
        return [run_elsewhere(form, file, patches, expected)]
    return [
        run_elsewhere(form, file, patches, expected, backend=backend)
        if find_spec(backend) is not None
        else Agreement(f"Keras on {backend}", None)
        for backend in BACKENDS
    ]


def run_elsewhere(
    form: str,
    file: Path,
    patches: np.ndarray,
    expected: np.ndarray,
    backend: str | None = None,
    python: str = sys.executable,
) -> Agreement:
    """Run a file in a fresh process without the package cancernet, on the CPU.

    Args:
        form: The format.
        file: The file.
        patches: (N, H, W, 3) uint8.
        expected: (N,) probability of IDC.
        backend: Backend of Keras, for the formats that Keras opens.
        python: The interpreter, of any environment.

    Raises:
        InputError: It cannot open or run the file, or does not return N finite probabilities.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    if backend is not None:
        environment["KERAS_BACKEND"] = backend
    with tempfile.TemporaryDirectory() as folder:
        images, probabilities = Path(folder, "patches.npy"), Path(folder, "probabilities.npy")
        np.save(images, patches)
        command = [python, "-I", str(SCRIPT), form, str(file.resolve()), str(images), str(probabilities)]
        # Outside the checkout, whose package must not be found by chance.
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=TIME_LIMIT, check=False
        )
        lines = done.stdout.strip().splitlines()
        if done.returncode == 3 and lines:
            return Agreement(json.loads(lines[-1])["missing"], None)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
            raise InputError(f"export: the {form} file does not run in its runtime ({reason}); nothing was written")
        found = np.load(probabilities)
    return _compare(form, json.loads(lines[-1])["runtime"], found, expected)


def _reload(file: Path, patches: np.ndarray, expected: np.ndarray) -> Agreement:
    """Load a safetensors file into a fresh network, built by the file's own metadata, and run it.

    The metadata name a network that the user has just exported, so building it runs no code that was not trusted.
    """
    safetensors = import_module("safetensors")
    with safetensors.safe_open(file, "pt") as content:
        metadata = json.loads(content.metadata()["cancernet"])
    names = ("network", "network_arguments", "image_size", "classes")
    network = create_network(*[metadata[name] for name in names])
    network.load_state_dict(import_module("safetensors.torch").load_file(file))
    model = ServedNetwork(network, metadata["temperature"]).eval()
    with torch.inference_mode():
        found = torch.cat([model(batch)[:, -1] for batch in torch.from_numpy(patches).split(BATCH)]).numpy()
    runtime = f"safetensors {safetensors.__version__} in a fresh network"
    return _compare("safetensors", runtime, found.astype(np.float64), expected)


def _compare(form: str, runtime: str, found: np.ndarray, expected: np.ndarray) -> Agreement:
    if found.shape != expected.shape or not np.isfinite(found).all():
        raise InputError(f"export: the {form} file does not give one probability per patch; nothing was written")
    return Agreement(runtime, float(np.abs(found - expected).max()))
