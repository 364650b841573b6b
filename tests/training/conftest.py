"""A run that several files look at."""

from pathlib import Path

import pytest

from tests.training.calibrated import make_run


@pytest.fixture(scope="session")
def calibrated_run(archive, cache, tmp_path_factory) -> Path:
    """The folder of a run that is calibrated and tested; read it, or copy it to change it."""
    return make_run(archive, cache, tmp_path_factory.mktemp("calibrated"))
