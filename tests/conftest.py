"""What many tests share: one small archive of colours that a network can learn, packed once."""

import logging
import os
from pathlib import Path

# Before anything imports keras: the suite runs in one process, on the torch backend.
os.environ["KERAS_BACKEND"] = "torch"

# Lightning's logger keeps the standard error it meets when imported, which must not be a single test's.
import lightning.pytorch  # noqa: F401
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from cancernet.data.store.find import find_store
from cancernet.data.store.store import PatchStore
from tests.data.drawing import encode, patch_path, write_zip

# A command says an error in one line; where a test fails, pytest shows the traceback from the log.
logging.getLogger("cancernet.errors").setLevel(logging.DEBUG)

# On a machine under load an example takes as long as it takes.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


def learnable_files(cases: int = 12, columns: int = 5, rows: int = 4, seed: int = 0) -> dict[str, bytes]:
    """Draw cases whose IDC patches are darker than their benign ones, with noise that hides some of it."""
    random = np.random.default_rng(seed)
    files = {}
    for case in range(cases):
        for number in range(columns * rows):
            label = int(number % 3 == case % 3)
            x, y = 1 + 50 * (number % columns), 1 + 50 * (number // columns)
            base = random.normal(165 - 45 * label, 18, 3)
            pixels = np.clip(random.normal(base, 25, (50, 50, 3)), 0, 255).astype(np.uint8)
            files[patch_path(str(7000 + case), x, y, label)] = encode(Image.fromarray(pixels))
    return files


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> Path:
    """A zip of 240 learnable patches of 12 cases in the real layout."""
    return write_zip(tmp_path_factory.mktemp("archive") / "colours.zip", learnable_files())


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    """A cache folder of the session's own."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def store(archive, cache) -> PatchStore:
    """The archive, packed."""
    return find_store(archive, cache, workers=1)
