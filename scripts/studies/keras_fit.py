"""The recipe of 2019 by Keras' own `fit`, evaluated by `cancernet test`: the reference for `configs/original.yaml`.

Network, compiled model, optimizer, loss, class weights, batch norm and dropout are Keras' own here. Patches, split and
augmentation are this project's, so that only the way of training can make a difference.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cancernet.checkpoints import replace_checkpoint
from cancernet.errors import explained
from cancernet.files import replacing
from cancernet.model.backend import require_torch_backend

require_torch_backend()

import keras  # noqa: E402  (the backend must be settled before)

from cancernet.data.augment import scale_and_augment  # noqa: E402
from cancernet.data.datamodule import IDCDataModule  # noqa: E402
from cancernet.model.keras_files.weights import read_weights  # noqa: E402
from cancernet.model.network import CancerNet  # noqa: E402
from cancernet.options import OptionParser  # noqa: E402
from cancernet.training.acceleration import keep_freed_memory  # noqa: E402
from cancernet.training.weights import make_checkpoint  # noqa: E402
from scripts.studies.repeat import read_tested, summarise  # noqa: E402
from scripts.studies.trials import Command, Trial, fitted, newest_test, plan, run_command, warning  # noqa: E402

MODULE = "scripts.studies.keras_fit"
CHECKPOINT = "last.ckpt"
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

    def __len__(self) -> int:
        return len(self._loader)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        if number == 0:
            self._batches = iter(self._loader)
        batch = next(self._batches)
        image = scale_and_augment(batch["image"], self._operations, batch["seed"])
        return image.permute(0, 2, 3, 1).numpy(), np.eye(2, dtype=np.float32)[batch["label"].numpy()]

    def start(self, epoch: int) -> None:
        """Take the order of an epoch."""
        self._loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]


def fit(data: IDCDataModule, file: Path, seed: int, epochs: int) -> None:
    """Train by `keras.Model.fit` and save the model; an interrupted training goes on from its last whole epoch.

    Then its dropout draws other masks than without the interruption: Keras saves no state of its random numbers.

    Args:
        data: Set up.
        file: The `.keras` file to write.
        seed: Of the weights and the dropout.
        epochs: Passes over the training part.
    """
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
    batches = Batches(data)
    callbacks = [
        keras.callbacks.BackupAndRestore(file.parent / "backup", double_checkpoint=True),
        keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: batches.start(epoch + 1)),
    ]
    model.fit(batches, epochs=epochs, class_weight=weights, shuffle=False, verbose=2, callbacks=callbacks)
    with replacing(file) as partial:
        model.save(partial)


def run(trial: Trial, arguments: dict[str, str | None], epochs: int) -> None:
    """Train, choose the threshold on validation and test; what is there already is kept.

    Args:
        trial: Its seed is that of weights, dropout, order and augmentation.
        arguments: Of the data module.
        epochs: Passes over the training part.

    Raises:
        InputError: The data cannot be used, or a command failed.
    """
    folder, seed = trial.folder / "lightning_logs" / "version_0", trial.seed
    model, checkpoint = folder / "model.keras", folder / "checkpoints" / CHECKPOINT
    if fitted(trial.folder, CHECKPOINT) is None:
        data = IDCDataModule(**arguments, seed=seed, batch_size=BATCH, augmentation=["original"])  # type: ignore[arg-type]
        data.prepare_data()
        data.setup("fit")
        if not model.exists():
            fit(data, model, seed, epochs)
        # With what trained it, as a checkpoint of `cancernet fit` has it: no command then takes the data by itself.
        replace_checkpoint(checkpoint, {**make_checkpoint(read_weights(model)), "IDCDataModule": data.state_dict()})
        run_command(["calibrate", str(checkpoint)])
    if newest_test(trial.folder, CHECKPOINT) is None:
        run_command(["test", f"--ckpt_path={checkpoint}"])


@dataclass(frozen=True)
class KerasJob:
    """Keras' own fit in one trial, for an engine: it has no recorded options, as the recipe is fixed.

    Args:
        trial: In a folder as `plan` names it.
        arguments: Of the data module.
        epochs: Passes over the training part.
    """

    trial: Trial
    arguments: dict[str, str | None]
    epochs: int = EPOCHS

    def is_complete(self) -> bool:
        """Return whether the trial was tested, at a threshold of validation."""
        folder = self.trial.folder
        return fitted(folder, CHECKPOINT) is not None and newest_test(folder, CHECKPOINT) is not None

    def complete(self, command: Command) -> None:
        """Run what is missing.

        Raises:
            InputError: The command failed.
        """
        if not self.is_complete():
            given = {"seeds": self.trial.seed, "epochs": self.epochs, **self.arguments}
            options = [f"--{name}={value}" for name, value in given.items() if value is not None]
            command([str(self.trial.folder.parent), *options], MODULE)


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
    for trial in trials:
        run(trial, {"root": given.root, "split": given.split, "cache": given.cache}, given.epochs)
    runs = read_tested(trials)
    print(warning(trials[0].folder), end="")
    print(runs.round(4).to_string(index=False), summarise(runs).round(4).to_string(), given.output, sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
