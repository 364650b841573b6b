"""Section `startup`: how long until something happens."""

import json
import os
import sys
import time
from pathlib import Path

from cancernet.benchmark.drawing import draw_store
from cancernet.benchmark.memory import run_watched
from cancernet.benchmark.rounds import Figure
from cancernet.benchmark.turns import memory_line

FIRST_BATCH = 32
"""The original recipe's batch; a larger one needs more memory for its activations, whatever the data."""


def measure_startup(folder: Path, patches: int, rounds: int) -> list[Figure]:
    """Measure `--help`, `fit --help`, and `fit` to its first step on a store of so many patches."""
    store = draw_store(folder / f"store-{patches}", patches)
    figures = {
        "--help": Figure("cancernet --help", "s"),
        "fit --help": Figure("cancernet fit --help", "s"),
        "imports": Figure("imports of fit", "s"),
        "first_step": Figure(f"open {patches:,} patches, to the end of the first step", "s"),
        "anonymous": Figure("anonymous memory for that, beyond the imports", "MB"),
    }
    for _ in range(rounds):
        for command in ("--help", "fit --help"):
            figures[command].values.append(run_watched(["-m", "cancernet", *command.split()])[1])
        output, _, _ = run_watched(
            ["-m", __name__, str(store.path), str(folder)], {**os.environ, "KERAS_BACKEND": "torch"}
        )
        for name, value in json.loads(output.splitlines()[-1]).items():
            figures[name].values.append(value)
    return list(figures.values())


def open_and_step(store: str, folder: str) -> dict[str, float]:
    """Open a store and train one step, as `fit` does, in this process.

    Returns:
        `imports` and `first_step`, seconds; `anonymous`, megabytes added after the imports.
    """
    start = time.perf_counter()
    from lightning.pytorch import Callback, Trainer

    from cancernet.data.datamodule import IDCDataModule
    from cancernet.training.task import ClassificationTask

    imported, before = time.perf_counter(), memory_line("RssAnon")
    found: dict[str, float] = {"imports": imported - start}

    class Observer(Callback):
        def on_train_batch_end(self, *_: object) -> None:
            found["first_step"] = time.perf_counter() - imported
            found["anonymous"] = memory_line("RssAnon") - before

    trainer = Trainer(
        max_steps=1,
        accelerator="auto",
        logger=False,
        callbacks=[Observer()],
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    data = IDCDataModule(store, batch_size=FIRST_BATCH, augmentation=["original"])
    trainer.fit(ClassificationTask(optimizer="adagrad", learning_rate=0.01), datamodule=data)
    return found


if __name__ == "__main__":
    print(json.dumps(open_and_step(*sys.argv[1:])))
