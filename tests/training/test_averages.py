# mypy: allow-untyped-defs
import pytest

from cancernet.checkpoints import read_checkpoint
from scripts.studies.averages import score


def test_a_network_alone_has_the_figure_that_its_calibration_recorded(calibrated_run):
    root = calibrated_run.parents[1]
    found = score([root])
    recorded = read_checkpoint(calibrated_run / "checkpoints" / "last.ckpt")["cancernet"]["calibration"]["auroc"]
    assert found[root.parent.name] == pytest.approx(recorded, abs=1e-6)
    assert list(found) == [root.parent.name, f"{root.parent.name}, eight symmetries"]
