"""The fuzzed readers take their seeds, and what chance makes of these, without any error but those they document."""

import random

import pytest

from scripts.fuzzing.targets import MAKERS, make_target


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MAKERS)
def test_a_reader_takes_seeds_and_damaged_seeds(name, tmp_path, capfd):
    target = make_target(name, tmp_path / name)
    chance = random.Random(0)
    for seed in target.seeds:
        target(seed)
        for _ in range(3):
            damaged = bytearray(seed)
            # The first byte may tell which file of several is meant.
            for place in range(1, len(damaged), max(2, len(damaged) // 5)):
                damaged[place] = chance.randrange(256)
            target(bytes(damaged))
    assert "Traceback" not in capfd.readouterr().err
