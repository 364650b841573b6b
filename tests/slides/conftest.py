import pytest

import cancernet
from tests.slides.drawing import write_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model") / "last.ckpt")


@pytest.fixture(scope="session")
def predictor(checkpoint):
    return cancernet.load(checkpoint)
