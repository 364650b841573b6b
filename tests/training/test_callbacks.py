"""Figures in TensorBoard."""

from types import SimpleNamespace

import pytest
import torch

from cancernet.training.callbacks import figures as figures_module
from cancernet.training.callbacks.figures import TensorBoardFigures, draw_validation
from cancernet.training.metrics import build_metrics


@pytest.mark.parametrize(("epochs", "drawn"), [(1, [1]), (5, [5]), (7, [5, 7]), (10, [5, 10])])
def test_figures_come_every_few_epochs_and_at_the_end(epochs, drawn, monkeypatch):
    steps: list[int] = []
    board = SimpleNamespace(add_figure=lambda name, figure, step: steps.append(step))
    monkeypatch.setattr(TensorBoardFigures, "_board", staticmethod(lambda trainer: board))
    monkeypatch.setattr(figures_module, "draw_validation", lambda values, synthetic: {"one": None})
    trainer = SimpleNamespace(sanity_checking=False, datamodule=None, global_step=0, current_epoch=0)
    task, figures = SimpleNamespace(computed={"val": {}}), TensorBoardFigures(every_n_epochs=5)
    for epoch in range(epochs):
        trainer.current_epoch, trainer.global_step = epoch, epoch + 1
        figures.on_validation_end(trainer, task)
    figures.on_train_end(trainer, task)
    assert steps == drawn


def test_all_figures_are_drawn_from_what_the_metrics_compute():
    metrics = build_metrics()
    random = torch.Generator().manual_seed(0)
    probability = torch.rand(500, generator=random).mul(50).round().div(50)
    metrics.update(probability, torch.bernoulli(probability, generator=random).long())
    figures = draw_validation(metrics.compute(), synthetic=True)
    assert set(figures) == {"confusion_matrix", "roc", "precision_recall", "reliability"}
    title = figures["reliability"].axes[0].get_title()
    assert "synthetic" in title
    line = figures["reliability"].axes[0].lines[1]
    # Drawn from their own probability, labels lie along the diagonal.
    assert abs(line.get_ydata() - line.get_xdata()).max() < 0.2


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_reliability_diagram(label):
    metrics = build_metrics()
    metrics.update(torch.rand(20), torch.full((20,), label))
    assert "reliability" not in draw_validation(metrics.compute(), synthetic=False)
