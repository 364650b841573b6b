# mypy: allow-untyped-defs
import numpy as np
import pytest

from cancernet.export import command
from cancernet.export.check import Agreement


@pytest.fixture(scope="module")
def patches():
    return np.random.default_rng(0).integers(0, 256, (4, 50, 50, 3), dtype=np.uint8)


@pytest.fixture
def noise(monkeypatch, patches):
    """Noise instead of synthetic tissue, which takes a second."""
    monkeypatch.setattr(command, "_synthetic_patches", lambda count: patches)


@pytest.fixture
def agreeing(monkeypatch):
    """A check that finds no difference, for tests of other things: the real one starts a process."""
    monkeypatch.setattr(command, "check", lambda *arguments: [Agreement("nothing", 0.0)])
