"""Figures in TensorBoard cost less than their share of a run."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cancernet.training import callbacks
from cancernet.training.callbacks import FIGURE_SHARE, FIRST_FIGURES, TensorBoardFigures, draw_validation
from cancernet.training.metrics import build_metrics


class Clock:
    """A clock that stands still unless told otherwise."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Board:
    """Takes its time for each figure."""

    def __init__(self, clock: Clock, cost: float) -> None:
        self.clock, self.cost, self.spent, self.drawn = clock, cost, 0.0, 0

    def add_figure(self, name: str, figure: object, step: int) -> None:
        self.clock.now += self.cost
        self.spent += self.cost
        self.drawn += 1


def run(monkeypatch, epochs: int, seconds: float, cost: float) -> tuple[Board, list[tuple[float, float]]]:
    """Validate after each epoch; returns the board, and (time, time spent on figures) after each validation."""
    clock = Clock()
    board = Board(clock, cost)
    monkeypatch.setattr(TensorBoardFigures, "_board", staticmethod(lambda trainer: board))
    monkeypatch.setattr(callbacks, "draw_validation", lambda values, synthetic: {"one": None})
    data = SimpleNamespace(store=SimpleNamespace(synthetic=False))
    trainer = SimpleNamespace(sanity_checking=False, datamodule=data, global_step=0)
    task = SimpleNamespace(computed={"val": {}})
    figures, history = TensorBoardFigures(clock), []
    figures.on_fit_start(trainer, task)  # type: ignore[arg-type]
    for _ in range(epochs):
        clock.now += seconds
        figures.on_validation_end(trainer, task)  # type: ignore[arg-type]
        history.append((clock.now, board.spent))
    figures.on_train_end(trainer, task)  # type: ignore[arg-type]
    return board, history


@given(epochs=st.integers(1, 60), seconds=st.floats(0.1, 500), cost=st.floats(0.01, FIRST_FIGURES))
def test_figures_stay_within_their_share_at_any_time(epochs, seconds, cost):
    with pytest.MonkeyPatch.context() as patch:
        board, history = run(patch, epochs, seconds, cost)
    assert all(spent <= FIGURE_SHARE * now for now, spent in history)
    assert board.drawn >= 1


def test_long_epochs_get_figures_each_time_and_short_ones_seldom(monkeypatch):
    assert run(monkeypatch, epochs=20, seconds=100, cost=0.5)[0].drawn == 20
    assert 5 <= run(monkeypatch, epochs=100, seconds=2, cost=0.5)[0].drawn <= 8


def test_a_run_too_short_for_figures_gets_them_once(monkeypatch):
    board, history = run(monkeypatch, epochs=2, seconds=1, cost=0.5)
    assert history[-1][1] == 0
    assert board.drawn == 1


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
