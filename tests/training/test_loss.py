"""The training loss, held against torch and against Keras itself."""

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cancernet.training.loss import TrainingLoss, cross_entropy


def draw_scores(count: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits of two units, that of IDC, and labels."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(count, 2, generator=random)
    return logits, logits[:, 1] - logits[:, 0], torch.randint(0, 2, (count,), generator=random)


def test_loss_of_two_units_is_the_cross_entropy_of_their_softmax():
    logits, logit, label = draw_scores()
    torch.testing.assert_close(cross_entropy(logit, label), F.cross_entropy(logits, label))
    torch.testing.assert_close(TrainingLoss("none", 0.0, 0.0)(logit, label), F.cross_entropy(logits, label))


def test_weighted_loss_is_keras_own():
    logits, logit, label = draw_scores()
    weights = (1.0, 2.52)
    balanced = TrainingLoss("balanced", 0.0, 0.0)
    balanced.set_class_weights(weights, logit.device)
    result = balanced(logit, label)
    probability = torch.softmax(logits, dim=1)
    target = F.one_hot(label, 2).float()
    per_patch = keras.losses.BinaryCrossentropy(reduction="sum_over_batch_size")
    sample_weight = torch.tensor(weights)[label]
    assert float(result) == pytest.approx(float(per_patch(target, probability, sample_weight=sample_weight)), rel=1e-5)
    # torch divides by the sum of the weights instead: not what the recipe trained with.
    assert float(result) != pytest.approx(float(F.cross_entropy(logits, label, torch.tensor(weights))), rel=0.05)


def test_given_weights_win_over_the_balanced_ones_and_none_are_ones():
    _, logit, label = draw_scores()
    for given, expected in (((1.0, 3.0), (1.0, 3.0)), ("none", (1.0, 1.0)), ("balanced", (1.0, 2.0))):
        loss = TrainingLoss(given, 0.0, 0.0)
        loss.set_class_weights((1.0, 2.0) if given == "balanced" else given, logit.device)
        each = F.binary_cross_entropy_with_logits(logit, label.float(), reduction="none")
        torch.testing.assert_close(loss(logit, label), (torch.tensor(expected)[label] * each).mean())


def test_smoothed_loss_is_torch_own():
    logits, logit, label = draw_scores()
    result = TrainingLoss("none", 0.1, 0.0)(logit, label)
    torch.testing.assert_close(result, F.cross_entropy(logits, label, label_smoothing=0.1))


def test_mixed_loss_is_that_of_mixed_labels():
    """The cross-entropy is linear in the label: two losses in shares are one loss of the mixed label."""
    image, label = torch.rand(6, 3, 10, 10), torch.tensor([0, 1, 1, 0, 1, 0])
    loss = TrainingLoss("none", 0.0, 0.2)
    mixed, share = loss.mix({"image": image, "seed": 7})
    drawn = np.random.default_rng(7).beta(0.2, 0.2)
    assert share == max(drawn, 1 - drawn)
    assert 0.5 < share < 1
    torch.testing.assert_close(mixed, share * image + (1 - share) * image.flip(0))
    logit = mixed.mean(dim=(1, 2, 3)) - 0.4
    target = share * label + (1 - share) * label.flip(0)
    torch.testing.assert_close(loss(logit, label, share), F.binary_cross_entropy_with_logits(logit, target))


def test_nothing_is_mixed_where_nothing_is_asked_for():
    image = torch.rand(2, 3, 10, 10)
    mixed, share = TrainingLoss("none", 0.0, 0.0).mix({"image": image})
    assert mixed is image
    assert share == 1
