"""The recipe of 2019 by Keras' own `fit`, evaluated by `cancernet test`: the reference for `configs/original.yaml`.

Network, compiled model, optimizer, loss, class weights, batch norm and dropout are Keras' own here. Patches, split and
augmentation are this project's, so that only the way of training can make a difference.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cancernet.errors import explained
from cancernet.model.backend import require_torch_backend

require_torch_backend()

import keras  # noqa: E402  (the backend must be settled before)

from cancernet.data.augment import scale_and_augment  # noqa: E402
from cancernet.data.datamodule import IDCDataModule  # noqa: E402
from cancernet.model.network import CancerNet  # noqa: E402
from cancernet.options import OptionParser  # noqa: E402
from cancernet.training.acceleration import keep_freed_memory  # noqa: E402
from scripts.studies.repeat import is_tested, read_tested, summarise  # noqa: E402
from scripts.studies.trials import Trial, data_options, plan, run_command  # noqa: E402

BATCH = 32
EPOCHS = 40
RATE, DECAY = 1e-2, 2.5e-4
EPSILON = 1e-14
"""Keras 3 adds it inside the square root, Keras of 2019 added 1e-7 outside, which is the root of this."""


class Batches(keras.utils.PyDataset):
    """The training part in the order, and with the augmentation, of `IDCDataModule`."""

    def __init__(self, data: IDCDataModule) -> None:
        super().__init__()
        self._loader = data.train_dataloader()
        self._operations = data.augmentation
        self._epoch = 0
        self._start()

    def __len__(self) -> int:
        return len(self._loader)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        batch = next(self._batches)
        image = scale_and_augment(batch["image"], self._operations, batch["seed"])
        return image.permute(0, 2, 3, 1).numpy(), np.eye(2, dtype=np.float32)[batch["label"].numpy()]

    def on_epoch_end(self) -> None:
        """Take the next epoch's order."""
        self._epoch += 1
        self._start()

    def _start(self) -> None:
        self._loader.sampler.set_epoch(self._epoch)  # type: ignore[attr-defined]
        self._batches = iter(self._loader)


def fit(data: IDCDataModule, file: Path, seed: int, epochs: int) -> None:
    """Train by `keras.Model.fit` and save the model.

    Args:
        data: Prepared, not set up.
        file: The `.keras` file to write.
        seed: Of the weights and the dropout.
        epochs: Passes over the training part.
    """
    data.setup("fit")
    keras.utils.set_random_seed(seed)
    model = CancerNet.build()
    model.compile(
        # Keras 3 ignores the tutorial's `decay`; this schedule is what it did: rate / (1 + decay * step).
        optimizer=keras.optimizers.Adagrad(
            keras.optimizers.schedules.InverseTimeDecay(RATE, decay_steps=1, decay_rate=DECAY),
            initial_accumulator_value=0.0,
            epsilon=EPSILON,
        ),
        loss="binary_crossentropy",
        metrics=["accuracy"],
    )
    weights = dict(enumerate(data.balanced_weights))
    model.fit(Batches(data), epochs=epochs, class_weight=weights, shuffle=False, verbose=2)
    file.parent.mkdir(parents=True, exist_ok=True)
    model.save(file)


def run(trials: Sequence[Trial], arguments: dict[str, str | None], epochs: int) -> None:
    """Train and test each trial; finished ones are kept.

    Raises:
        InputError: The data cannot be used, or a test failed.
    """
    for trial in trials:
        if is_tested(trial):
            continue
        folder, seed = trial.folder / "lightning_logs" / "version_0", trial.seed
        data = IDCDataModule(**arguments, seed=seed, batch_size=BATCH, augmentation=["original"])  # type: ignore[arg-type]
        data.prepare_data()
        model, checkpoint = folder / "model.keras", folder / "checkpoints" / "last.ckpt"
        if not model.exists():
            fit(data, model, seed, epochs)
        checkpoint.unlink(missing_ok=True)
        run_command(["convert", str(model), str(checkpoint)])
        run_command(["test", f"--ckpt_path={checkpoint}", f"--data.seed={seed}", *data_options(arguments)])


@explained("fit_by_keras")
def main(arguments: list[str]) -> int:
    """Run from the command line; see `scripts/fit_by_keras`."""
    parser = OptionParser(prog="scripts/fit_by_keras", description=__doc__)
    parser.add_argument("output", type=Path, help="folder of all runs, for `scripts/repeat --against`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run a seed (0 1 2)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the training part (40)")
    parser.add_argument("--root", required=True, help="root of the data, as --data.root takes it")
    parser.add_argument("--split", default="case", help="as --data.split takes it (case)")
    parser.add_argument("--cache", help="folder for packed stores")
    given = parser.parse_args(arguments)
    keep_freed_memory()
    trials = plan(given.output, given.seeds)
    run(trials, {"root": given.root, "split": given.split, "cache": given.cache}, given.epochs)
    runs = read_tested(trials)
    print(runs.round(4).to_string(index=False), summarise(runs).round(4).to_string(), given.output, sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
