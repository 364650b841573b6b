import torch
from lightning.pytorch import Callback

from cancernet.training.averaging import ExponentialAveraging
from cancernet.training.optimization import OptimizerSettings
from cancernet.training.task import ClassificationTask
from tests.training.quiet import quiet_trainer

EPOCHS, STEPS = 4, 2


class Weights(Callback):
    """Keep a weight as it stands after each epoch's last step, before any average takes its place."""

    def __init__(self):
        self.trained = []
        self.validated = []
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.variance = pl_module.network.block1_norm1.running_var.clone()
        self.steps.append(pl_module.network.classifier.bias.detach().clone())
        if trainer.is_last_batch:
            self.trained.append(pl_module.network.classifier.bias.detach().clone())

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.validated.append(pl_module.network.classifier.bias.detach().clone())


def fit(average, weights, epochs=EPOCHS):
    torch.manual_seed(0)
    batches = [
        {"image": torch.rand(8, 3, 8, 8), "label": torch.tensor([0, 1] * 4), "index": torch.arange(8), "seed": 0}
        for _ in range(STEPS)
    ]
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    task = ClassificationTask(image_size=8, optimizer=OptimizerSettings(lr=0.05))
    trainer = quiet_trainer(max_epochs=epochs, num_sanity_val_steps=0, callbacks=[weights, average])
    trainer.fit(task, loader, loader)
    return task.network


def test_the_newest_weights_have_the_largest_share():
    weights = Weights()
    network = fit(ExponentialAveraging(0.5), weights)
    average = weights.steps[0]
    for count, step in enumerate(weights.steps[1:], start=1):
        kept = min(0.5, (1 + count) / (10 + count))
        average = kept * average + (1 - kept) * step
    assert len(weights.steps) == EPOCHS * STEPS
    torch.testing.assert_close(network.classifier.bias.detach(), average)
    # What is validated is what is saved: the average so far.
    torch.testing.assert_close(weights.validated[-1], average)


def test_a_short_run_forgets_where_batch_norm_started():
    """At a decay of 0.99, sixteen steps of Lightning's own average would keep 85 % of the initial variance of 1."""
    weights = Weights()
    network = fit(ExponentialAveraging(0.99), weights, epochs=8)
    torch.testing.assert_close(network.block1_norm1.running_var, weights.variance, rtol=0.25, atol=0)
    assert network.block1_norm1.running_var.max() < 0.95
