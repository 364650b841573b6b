"""Training epochs through the Trainer: ours, and the usual pipeline of a folder of images. Run by `rounds`.

Arguments: `ours`, `compiled` (ours with `--model.compile`) or `usual`, the store or the folder of images, and a folder
for logs.
"""

import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC
from torchvision import transforms
from torchvision.datasets import ImageFolder

from cancernet.benchmark.handwritten import build_handwritten, difference
from cancernet.benchmark.turns import memory_line, reset_peak, serve
from cancernet.data.datamodule import IDCDataModule
from cancernet.training.task import ClassificationTask

LOADER_WORKERS = 2


class Stopwatch(Callback):
    """Times an epoch, from its start to after its metrics are computed and logged."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        self.start = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        self.seconds = time.perf_counter() - self.start


class UsualTask(LightningModule):
    """What a tutorial shows: the hand-written network, a loss and two metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.network = build_handwritten()
        self.accuracy, self.auroc = BinaryAccuracy(), BinaryAUROC()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the weighted loss."""
        image, label = batch
        logit = difference(self.network(image.contiguous(memory_format=torch.channels_last)))
        weight = torch.where(label > 0, 2.52, 1.0)
        loss = F.binary_cross_entropy_with_logits(logit, label.float(), weight)
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
        return torch.optim.Adagrad(self.parameters(), lr=1e-2, lr_decay=2.5e-4, eps=1e-7)


def usual_loader(folder: str, batch: int) -> DataLoader:
    """Return PNG files augmented one by one by torchvision, in worker processes."""
    # Class folders lie one level down, in a folder for each case.
    dataset = _ByClass(
        folder,
        transforms.Compose(
            [
                transforms.RandomAffine(
                    20, (0.1, 0.1), (0.95, 1.05), interpolation=transforms.InterpolationMode.BILINEAR
                ),
                transforms.RandomHorizontalFlip(),
                transforms.RandomVerticalFlip(),
                transforms.ToTensor(),
            ]
        ),
    )
    return DataLoader(dataset, batch, shuffle=True, num_workers=LOADER_WORKERS, persistent_workers=True, drop_last=True)


class _ByClass(ImageFolder):
    """An ImageFolder over `<case>/<class>/<file>`."""

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Return the cases, each under the class 0 that nobody reads."""
        cases = sorted(path.name for path in Path(directory).iterdir() if path.is_dir())
        return cases, dict.fromkeys(cases, 0)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        image, _ = super().__getitem__(index)
        return image, int(Path(self.samples[index][0]).parent.name)


def main(kind: str, source: str, logs: str) -> None:
    """Answer turns; what is set up once in a run stays from turn to turn."""
    warnings.simplefilter("ignore")
    usual = kind == "usual"
    task: LightningModule = (
        UsualTask()
        if usual
        else ClassificationTask(optimizer="adagrad", learning_rate=1e-2, compile=kind == "compiled")
    )
    kept: dict[int, Any] = {}

    def answer(batch: int, batches: int, bf16: bool) -> dict[str, Any]:
        if batch not in kept:
            kept[batch] = (
                LightningDataModule.from_datasets()
                if usual
                else IDCDataModule(source, batch_size=batch, augmentation=["original"])
            )
            if usual:
                loader = usual_loader(source, batch)
                kept[batch].train_dataloader = lambda: loader
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
        reset_peak()
        trainer.fit(task, datamodule=kept[batch])
        return {"value": trainer.global_step * batch / watch.seconds, "peak": memory_line("VmHWM")}

    serve(answer, {"torch": torch.__version__})


if __name__ == "__main__":
    main(*sys.argv[1:])
