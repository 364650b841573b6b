"""The memory of a whole `fit`, measured from outside: what pandas and Arrow hold counts too."""

import sys

import pytest

from scripts.benchmarks.memory import measure_memory

BYTES_OF_A_PATCH = 250
"""5.3 million patches (40 GB) then add 1.3 GB to the 0.75 GB that `fit` takes at a batch of 32."""


@pytest.mark.skipif(sys.platform != "linux", reason="anonymous memory is counted as Linux does")
def test_the_memory_of_fit_grows_by_a_quarter_of_a_kilobyte_a_patch_at_most(tmp_path):
    few, many = 50_000, 650_000
    small, large = (figure.median for figure in measure_memory(tmp_path, [few, many], batch=32) if figure.unit == "MB")
    assert (large - small) * 2**20 / (many - few) < BYTES_OF_A_PATCH
