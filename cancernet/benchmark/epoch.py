"""Section `epoch`: a whole epoch through the Trainer, against the bare step and the usual pipeline."""

from contextlib import ExitStack
from pathlib import Path

from cancernet.benchmark.drawing import draw_folder, draw_store
from cancernet.benchmark.rounds import Contender, Figure, Worker, race

IMAGES = 6144
"""Patches an epoch has here; a rate does not depend on it once it is some ten seconds long."""


def measure_epochs(folder: Path, batch: int, rounds: int) -> dict[str, list[Figure]]:
    """Race whole training epochs with the original recipe's augmentation.

    Args:
        folder: Where the data are drawn.
        batch: Patches a batch.
        rounds: Epochs that count.

    Returns:
        The figures, under their heading.
    """
    store = draw_store(folder / f"store-{2 * IMAGES}", 2 * IMAGES).path
    pictures = draw_folder(folder / f"archive-{IMAGES}", IMAGES)
    with ExitStack() as stack:
        module = "cancernet.benchmark.epoch_worker"
        ours = stack.enter_context(Worker(module, "ours", str(store), str(folder), environment=TORCH))
        usual = stack.enter_context(Worker(module, "usual", str(pictures), str(folder), environment=TORCH))
        compiled = stack.enter_context(Worker(module, "compiled", str(store), str(folder), environment=TORCH))
        bare = stack.enter_context(Worker("cancernet.benchmark.torch_worker", "ours", "kept"))
        contenders = []
        for bf16 in (False, True):
            precision = "bf16" if bf16 else "fp32"
            step = {"task": "train", "batch": batch, "compiled": False, "bf16": bf16, "repeat": IMAGES // batch}
            epoch = {"batch": batch, "batches": IMAGES // batch, "bf16": bf16}
            contenders += [
                Contender(f"bare step, {precision}", bare, step),
                Contender(f"epoch, ours, {precision}", ours, epoch),
                Contender(f"epoch, ours, --model.compile, {precision}", compiled, epoch),
                Contender(f"epoch, ImageFolder and 2 workers, {precision}", usual, epoch),
            ]
        return {f"epoch of {IMAGES:,} patches, batch {batch}": race(contenders, rounds)}


TORCH = {"KERAS_BACKEND": "torch"}
