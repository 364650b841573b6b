import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cancernet.errors import InputError
from cancernet.training.optimization import OptimizerSettings, ScheduleSettings, build_optimizer, build_schedule
from cancernet.training.task import ClassificationTask


@pytest.fixture(scope="module")
def task():
    return ClassificationTask()


def draw_scores(count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.randn(count, 2, generator=random), torch.randint(0, 2, (count,), generator=random)


def test_one_logit_and_two_units_both_give_one_logit():
    image = torch.rand(4, 3, 50, 50)
    for classes in (1, 2):
        assert ClassificationTask(classes=classes)(image).shape == (4,)


def test_patches_of_another_size_are_resized():
    task = ClassificationTask(image_size=48)
    assert task(torch.rand(2, 3, 50, 50)).shape == (2,)


def test_a_size_the_network_cannot_take_is_refused():
    with pytest.raises(InputError, match="4"):
        ClassificationTask(image_size=4)


def adagrad_2019(gradients: np.ndarray, start: np.ndarray, rate: float, decay: float) -> np.ndarray:
    """Keras 2.2.4's rule, written out in float64."""
    weight, squares = start.astype(np.float64), np.zeros_like(start, dtype=np.float64)
    for step, gradient in enumerate(gradients):
        squares += gradient**2
        weight = weight - rate / (1 + decay * step) * gradient / (np.sqrt(squares) + 1e-7)
    return weight


def test_adagrad_follows_the_rule_of_2019():
    random = np.random.default_rng(0)
    gradients = random.normal(size=(200, 3, 5)).astype(np.float32)
    layer = torch.nn.Linear(5, 3, bias=False)
    start = layer.weight.detach().numpy().copy()
    optimizer = build_optimizer(layer, OptimizerSettings("adagrad", lr=0.01, lr_decay=2.5e-4))
    schedule = build_schedule(optimizer, ScheduleSettings(), 200)
    for gradient in gradients:
        layer.weight.grad = torch.from_numpy(gradient)
        optimizer.step()
        schedule.step()
    expected = adagrad_2019(gradients, start, 0.01, 2.5e-4)
    np.testing.assert_allclose(layer.weight.detach().numpy(), expected, atol=2e-6)


def test_decay_never_becomes_weight_decay():
    layer = torch.nn.Linear(5, 3)
    optimizer = build_optimizer(layer, OptimizerSettings("adagrad", 0.01, 0.5, 0.9, 2.5e-4, 0.1))
    assert optimizer.defaults["weight_decay"] == 0
    assert optimizer.defaults["lr_decay"] == 2.5e-4
    assert optimizer.defaults["initial_accumulator_value"] == 0.1


def test_weight_decay_spares_biases_and_batch_norm(task):
    optimizer = build_optimizer(task.network, OptimizerSettings(weight_decay=0.05))
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == 1_233_533


def test_schedule_rises_and_falls_to_zero():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = build_schedule(optimizer, ScheduleSettings("cosine", warmup=0.25), 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(2 / 25)
    assert max(rates) == rates[25] == 2.0
    assert rates[-1] == pytest.approx(1 - math.cos(math.pi / 75), abs=1e-6)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: OptimizerSettings(lr=0.0), r"model.optimizer.lr: .* got 0.0"),
        (lambda: OptimizerSettings(lr=math.nan), r"model.optimizer.lr: .* got nan"),
        (lambda: ScheduleSettings(warmup=1.0), r"model.schedule.warmup: .* got 1.0"),
    ],
)
def test_bad_settings_are_named(build, words):
    with pytest.raises(InputError, match=words):
        build()


@pytest.mark.parametrize(("class_weights", "expected"), [((1.0, 3.0), 3.0), ("none", 1.0), ("balanced", 2.0)])
def test_class_weights_are_fixed_when_a_fit_starts(class_weights, expected):
    task = ClassificationTask(class_weights=class_weights)
    task._trainer = SimpleNamespace(datamodule=SimpleNamespace(balanced_weights=(1.0, 2.0)))
    task.on_fit_start()
    logit, label = torch.tensor([0.3]), torch.tensor([1])
    torch.testing.assert_close(task.loss(logit, label), expected * F.softplus(-logit[0]))


def test_the_averaged_logit_does_not_depend_on_how_the_patch_lies():
    # In double precision: the logits of a fresh network are as small as the rounding of single precision.
    task = ClassificationTask(tta=True).eval().double()
    image = torch.rand(3, 3, 50, 50, dtype=torch.float64)
    with torch.inference_mode():
        logit = task.predict_logit(image)
        turned = image.transpose(2, 3).flip(2)
        torch.testing.assert_close(task.predict_logit(turned), logit, atol=0, rtol=1e-6)
        assert not torch.allclose(task(turned), task(image), atol=0, rtol=1e-2)
        task.tta = False
        assert torch.equal(task.predict_logit(image), task(image))


def test_dropout_is_a_factor_on_the_rates():
    def rates(dropout):
        return [layer.p for layer in ClassificationTask(dropout=dropout).network.modules() if hasattr(layer, "p")]

    assert rates(0.5) == [rate / 2 for rate in rates(1.0)]
    assert set(rates(0.0)) == {0.0}


def test_a_training_step_sees_mixed_patches_and_returns_the_loss_of_mixed_labels(monkeypatch):
    task = ClassificationTask(mixup=0.2)
    image, label = torch.rand(6, 3, 50, 50), torch.tensor([0, 1, 1, 0, 1, 0])
    seen = []

    def forward(mixed):
        seen.append(mixed)
        return mixed.mean(dim=(1, 2, 3)) - 0.4

    monkeypatch.setattr(task, "forward", forward)
    # Every tenth batch is shown on the progress bar, which needs a running trainer; this one is not.
    loss = task.training_step({"image": image, "label": label, "seed": 7}, batch_idx=1)
    mixed, share = task.loss.mix({"image": image, "seed": 7})
    torch.testing.assert_close(seen[0], mixed)
    target = share * label + (1 - share) * label.flip(0)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(mixed.mean(dim=(1, 2, 3)) - 0.4, target))
