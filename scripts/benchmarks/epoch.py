"""Section `epoch`: whole training epochs through the Trainer, against the bare step and an ImageFolder pipeline.

Run as a module it is a worker. Arguments: `cancernet`, `compiled` (with `--model.compile`) or `folder` (the pipeline of
a tutorial), the store or the folder of images, and a folder for logs.
"""

import sys
import time
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC
from torchvision import transforms
from torchvision.datasets import ImageFolder

from cancernet.data.datamodule import IDCDataModule
from cancernet.training.optimization import OptimizerSettings
from cancernet.training.task import ClassificationTask
from scripts.benchmarks.machine import child_environment
from scripts.benchmarks.noise import make_folder, make_store
from scripts.benchmarks.race import Contender, Figure, race
from scripts.benchmarks.step import adagrad, build_handwritten, difference, torch_worker, weighted_loss
from scripts.benchmarks.worker import Worker, serve

IMAGES = 6144
"""Patches of an epoch; the rate does not depend on it once an epoch takes some ten seconds."""
LOADER_WORKERS = 2


def measure_epochs(
    folder: Path, batch: int, rounds: int, precisions: list[str], images: int = IMAGES
) -> dict[str, list[Figure]]:
    """Race training epochs with the augmentation of the original recipe.

    Args:
        folder: Of the synthetic data.
        batch: Patches a batch.
        rounds: Epochs that count.
        precisions: `fp32`, `bf16` or both.
        images: Patches of an epoch.

    Returns:
        The figures, under their heading.
    """
    store = make_store(folder / f"store-{2 * images}", 2 * images).path
    pictures = make_folder(folder / f"archive-{images}", images)
    with ExitStack() as stack:

        def worker(kind: str, source: Path) -> Worker:
            environment = child_environment(KERAS_BACKEND="torch")
            module = "scripts.benchmarks.epoch"
            return stack.enter_context(Worker(module, kind, str(source), str(folder), environment=environment))

        cancernet, compiled, usual = worker("cancernet", store), worker("compiled", store), worker("folder", pictures)
        bare = stack.enter_context(torch_worker("cancernet", "kept"))
        contenders = []
        for precision in precisions:
            bf16 = precision == "bf16"
            step = {"task": "train", "batch": batch, "compiled": False, "bf16": bf16, "repeat": images // batch}
            epoch = {"batch": batch, "batches": images // batch, "bf16": bf16}
            contenders += [
                Contender(f"bare step, {precision}", bare, step),
                Contender(f"epoch, CancerNet, {precision}", cancernet, epoch),
                Contender(f"epoch, CancerNet, --model.compile, {precision}", compiled, epoch),
                Contender(f"epoch, ImageFolder and {LOADER_WORKERS} workers, {precision}", usual, epoch),
            ]
        return {f"epoch of {images:,} patches, batch {batch}": race(contenders, rounds)}


class Stopwatch(Callback):
    """Times an epoch, from its start to after its metrics are computed and logged."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        self.start = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self.start


class TutorialTask(LightningModule):
    """The task as a tutorial shows it: the hand-written network, a loss and two metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.network = build_handwritten()
        self.accuracy, self.auroc = BinaryAccuracy(), BinaryAUROC()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the weighted loss."""
        image, label = batch
        logit = difference(self.network(image.contiguous(memory_format=torch.channels_last)))
        loss = weighted_loss(logit, label)
        probability = torch.sigmoid(logit.detach())
        self.accuracy.update(probability, label)
        self.auroc.update(probability, label)
        self.log("loss", loss)
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the metrics."""
        self.log_dict({"train/accuracy": self.accuracy.compute(), "train/auroc": self.auroc.compute()})
        self.accuracy.reset()
        self.auroc.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adagrad as of 2019."""
        return adagrad(self)


class ClassFolders(ImageFolder):
    """An ImageFolder over `<case>/<class>/<file>`: class folders lie in a folder for each case."""

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Return the cases, all under a class 0 that is not used."""
        cases = sorted(path.name for path in Path(directory).iterdir() if path.is_dir())
        return cases, dict.fromkeys(cases, 0)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, _ = super().__getitem__(index)
        return image, int(Path(self.samples[index][0]).parent.name)


def tutorial_data(folder: str, batch: int) -> LightningDataModule:
    """Return PNG files augmented one by one by torchvision, in worker processes."""
    bilinear = transforms.InterpolationMode.BILINEAR
    augmentation = [
        transforms.RandomAffine(20, (0.1, 0.1), (0.95, 1.05), interpolation=bilinear),
        transforms.RandomHorizontalFlip(),
        transforms.RandomVerticalFlip(),
        transforms.ToTensor(),
    ]
    images = ClassFolders(folder, transforms.Compose(augmentation))
    loader: DataLoader = DataLoader(
        images, batch, shuffle=True, num_workers=LOADER_WORKERS, persistent_workers=True, drop_last=True
    )
    data = LightningDataModule()
    data.train_dataloader = lambda: loader  # type: ignore[method-assign]
    return data


def main(kind: str, source: str, logs: str) -> None:
    """Answer with the speed of an epoch; task and data are kept from turn to turn, as from epoch to epoch of a run."""
    warnings.simplefilter("ignore")
    task: LightningModule = (
        TutorialTask()
        if kind == "folder"
        else ClassificationTask(optimizer=OptimizerSettings("adagrad", lr=1e-2), compile=kind == "compiled")
    )
    kept: dict[int, LightningDataModule] = {}

    def answer(batch: int, batches: int, bf16: bool) -> dict[str, Any]:
        if batch not in kept:
            kept[batch] = (
                tutorial_data(source, batch)
                if kind == "folder"
                else IDCDataModule(source, batch_size=batch, augmentation=["original"])
            )
        watch = Stopwatch()
        trainer = Trainer(
            max_epochs=1,
            limit_train_batches=batches,
            limit_val_batches=0,
            precision="bf16-mixed" if bf16 else "32-true",
            logger=TensorBoardLogger(logs),
            log_every_n_steps=10,
            callbacks=[watch],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=logs,
        )
        trainer.fit(task, datamodule=kept[batch])
        return {"value": trainer.global_step * batch / watch.seconds}

    serve(answer)


if __name__ == "__main__":
    main(*sys.argv[1:])
