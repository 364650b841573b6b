"""A run that several files look at."""

from pathlib import Path

import pytest

from tests.training.calibrated import make_run
from tests.training.interrupted import KEEP, QUIET, SMALL, fit


@pytest.fixture(scope="session")
def calibrated_run(archive, cache, tmp_path_factory) -> Path:
    """The folder of a run that is calibrated and tested; read it, or copy it to change it."""
    return make_run(archive, cache, tmp_path_factory.mktemp("calibrated"))


@pytest.fixture(scope="session")
def original_run(archive, cache, tmp_path_factory) -> tuple[Path, list[str]]:
    """A run of three epochs of six steps by the recipe of 2019, each state of its checkpoints kept; its arguments."""
    steps = ["--checkpoint.every_n_train_steps=4", *SMALL, *QUIET]
    arguments = ["--config=configs/original.yaml", f"--data.root={archive}", f"--data.cache={cache}", *steps]
    return fit(tmp_path_factory.mktemp("original"), *arguments, KEEP), arguments
