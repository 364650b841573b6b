import pytest
import torch
from lightning.pytorch import Callback, Trainer

from cancernet.training.averaging import TailAveraging
from cancernet.training.task import ClassificationTask

EPOCHS, STEPS = 4, 2


class Weights(Callback):
    """Keep a weight as it stands after each epoch's last step, before any average takes its place."""

    def __init__(self):
        self.trained = []
        self.validated = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.is_last_batch:
            self.trained.append(pl_module.network.classifier.bias.detach().clone())

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.validated.append(pl_module.network.classifier.bias.detach().clone())


@pytest.mark.parametrize(("tail", "averaged"), [(0.5, 2), (1.0, 4), (0.0, 1)])
def test_the_last_epochs_are_averaged_with_equal_weights(tail, averaged):
    torch.manual_seed(0)
    batches = [
        {"image": torch.rand(8, 3, 8, 8), "label": torch.tensor([0, 1] * 4), "index": torch.arange(8), "seed": 0}
        for _ in range(STEPS)
    ]
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    task, weights = ClassificationTask(image_size=8, learning_rate=0.05), Weights()
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=[weights, TailAveraging(tail)],
    )
    trainer.fit(task, loader, loader)
    expected = torch.stack(weights.trained[-averaged:]).mean(dim=0)
    torch.testing.assert_close(task.network.classifier.bias.detach(), expected)
    # What is validated is what is saved: the average so far; before the tail, the epoch's own weights.
    torch.testing.assert_close(weights.validated[-1], expected)
    torch.testing.assert_close(weights.validated[0], weights.trained[0])
