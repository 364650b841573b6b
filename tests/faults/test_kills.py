"""Forty kills at seeded places of a fit, each resumed: nothing is lost, and no half file is met."""

import random
from pathlib import Path

import pytest

from cancernet.checkpoints import read_checkpoint
from cancernet.training.checkpoints import recorded_calibration
from cancernet.training.resuming import newest_checkpoint
from tests.faults.lives import live
from tests.training.interrupted import QUIET, assert_equal

CHAINS, KILLS = 5, 4
"""For each recipe: chains of runs, and kills in each."""
STEPS = 24
RECIPES = {
    "original": ["--config=configs/original.yaml", "--data.batch_size=32"],
    "cancernet": ["--config=configs/cancernet.yaml", "--data.batch_size=32"],
}


@pytest.fixture(scope="module", params=sorted(RECIPES))
def recipe(request, archive, cache, store, tmp_path_factory) -> tuple[list[str], Path]:
    """The arguments of a run of four epochs of six steps, each second step kept; and the run that was never killed."""
    data = [f"--data.root={archive}", f"--data.cache={cache}", "--checkpoint.every_n_train_steps=2"]
    length = ["--trainer.max_epochs=4", "--model.image_size=24", *QUIET]
    arguments = ["fit", *RECIPES[request.param], *data, *length]
    root = tmp_path_factory.mktemp("whole")
    assert live([*arguments, f"--trainer.default_root_dir={root}"], root / "log") == 0
    return arguments, root / "lightning_logs" / "version_0" / "checkpoints"


def folders(root: Path) -> list[Path]:
    """Return the checkpoint folders of a root, the newest run first, all of whose files can be read."""
    found = sorted(root.glob("lightning_logs/version_*"), key=lambda path: -int(path.name.split("_")[1]))
    for file in root.rglob("*.ckpt"):
        if ".partial" not in file.parent.name:
            read_checkpoint(file)
    return [folder / "checkpoints" for folder in found]


def newest(root: Path) -> Path | None:
    return next((found for folder in folders(root) if (found := newest_checkpoint(folder))), None)


def choose_place(places: random.Random, step: int) -> tuple[str, int]:
    """Choose a batch to come, or one of the writes to come; after the last step only the calibration writes, twice."""
    if step == STEPS:
        return "write", places.randrange(2)
    return places.choice([("batch", min(step + places.randrange(1, 8), STEPS - 1)), ("write", places.randrange(3))])


@pytest.mark.parametrize("chain", range(CHAINS))
def test_a_run_that_is_killed_again_and_again_ends_as_the_one_that_was_not(recipe, chain, tmp_path):
    arguments, whole = recipe
    places = random.Random(chain)
    command = [*arguments, f"--trainer.default_root_dir={tmp_path}"]
    for kill in range(KILLS + 1):
        kept = newest(tmp_path)
        resume = [] if kept is None else [f"--ckpt_path={kept}"]
        at = choose_place(places, 0 if kept is None else read_checkpoint(kept)["global_step"])
        status = live([*command, *resume], tmp_path / "log", at if kill < KILLS else None)
        assert status == (-9 if kill < KILLS else 0), (at, (tmp_path / "log").read_text()[-3000:])
    for name in ("last", "best"):
        one, other = (read_checkpoint(folder / f"{name}.ckpt") for folder in (folders(tmp_path)[0], whole))
        del one["callbacks"], other["callbacks"]
        assert_equal(one, other, name)
        assert recorded_calibration(one) is not None
